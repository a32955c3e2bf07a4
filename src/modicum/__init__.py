"""Make models cost less to train."""
