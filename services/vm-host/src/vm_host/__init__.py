"""Package vm_host."""
