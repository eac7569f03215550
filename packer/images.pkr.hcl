# Cloud images with the QEMU guest agent. See README.md.

source "qemu" "cloud" {
  disk_image       = true
  disk_size        = var.disk_size
  format           = "qcow2"
  disk_compression = true
  disk_interface   = "virtio"
  net_device       = "virtio-net"

  qemu_binary  = local.qemu_binary
  accelerator  = var.accelerator
  machine_type = local.machine
  cpus         = var.cpus
  memory       = var.memory
  headless     = true

  # cloud-init is told by the serial number of the system where its seed is, and the seed by that of the board what to
  # let in: both are there at the first boot, on both architectures, without a CD-ROM (Debian's cloud kernel has no AHCI).
  http_directory = "${path.root}/seed"
  qemuargs = [
    ["-cpu", local.cpu],
    ["-bios", local.firmware],
    ["-display", var.display],
    ["-serial", "null"],
    ["-device", "virtio-rng-pci"],
    ["-smbios", "type=1,serial=ds=nocloud-net;s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/"],
    ["-smbios", "type=2,product=${var.user},serial=${local.password}"],
  ]

  communicator     = "ssh"
  ssh_username     = var.user
  ssh_password     = local.password
  ssh_timeout      = "20m"
  shutdown_timeout = "10m"
  # The user goes last, since it is the one who works here.
  shutdown_command = "sudo systemd-run --collect /root/.packer-finish"
  boot_wait        = "1s"
}

build {
  source "qemu.cloud" {
    name             = "debian"
    iso_url          = local.debian_image
    iso_checksum     = local.debian_checksum
    output_directory = "${var.output}/debian-${var.arch}"
    vm_name          = "debian-${var.arch}.qcow2"
  }

  source "qemu.cloud" {
    name             = "ubuntu"
    iso_url          = local.ubuntu_image
    iso_checksum     = local.ubuntu_checksum
    output_directory = "${var.output}/ubuntu-${var.arch}"
    vm_name          = "ubuntu-${var.arch}.qcow2"
  }

  provisioner "shell" {
    execute_command = "sudo {{ .Vars }} sh -eu {{ .Path }}"
    scripts = [
      "${path.root}/scripts/agent",
      "${path.root}/scripts/clean",
    ]
  }
}
