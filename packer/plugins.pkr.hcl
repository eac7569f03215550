# Packer 1.7 and newer fetch the QEMU builder by `packer init`. Debian's 1.6.6 has it built in and does not know this
# block, so it stands in a file of its own, which ./build leaves out there.
packer {
  required_plugins {
    qemu = {
      version = ">= 1.1.0"
      source  = "github.com/hashicorp/qemu"
    }
  }
}
