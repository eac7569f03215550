"""Package qemu_runner."""
