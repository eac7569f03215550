variable "arch" {
  type        = string
  default     = "amd64"
  description = "Architecture of the image as Debian calls it: amd64 or arm64."

  validation {
    condition     = contains(["amd64", "arm64"], var.arch)
    error_message = "The arch must be amd64 or arm64."
  }
}

variable "accelerator" {
  type        = string
  default     = "kvm"
  description = "What QEMU runs the guest with: kvm, tcg (any host, slow), hvf (macOS)."

  validation {
    condition     = contains(["kvm", "tcg", "hvf"], var.accelerator)
    error_message = "The accelerator must be kvm, tcg or hvf."
  }
}

variable "machine" {
  type        = string
  default     = ""
  description = "Machine type; empty: q35 for amd64, virt for arm64."
}

variable "cpu" {
  type        = string
  default     = ""
  description = "CPU model; empty: host with kvm and hvf, max with tcg."
}

variable "cpus" {
  type    = number
  default = 2
}

variable "memory" {
  type        = number
  default     = 1024
  description = "Memory of the guest that is built in, MiB."
}

variable "disk_size" {
  type        = string
  default     = "10G"
  description = "Virtual size of the image; instances may be given more, never less."
}

variable "firmware" {
  type        = string
  default     = ""
  description = "Firmware file; empty: QEMU's own BIOS for amd64, the file of Debian's qemu-efi-aarch64 for arm64."
}

variable "display" {
  type        = string
  default     = "none"
  description = "QEMU's -display; \"gtk\" or \"cocoa\" to watch."
}

variable "user" {
  type        = string
  default     = "packer"
  description = "The user that exists while the image is built; it is removed at the end with all that it owns."

  validation {
    condition     = var.user != "" && regex_replace(var.user, "^[a-z][a-z0-9-]*$", "") == ""
    error_message = "The user must be a lower-case user name."
  }
}

variable "output" {
  type        = string
  default     = "output"
  description = "Directory of the images; each is <output>/<distribution>-<arch>/<distribution>-<arch>.qcow2."
}

variable "debian_image" {
  type        = string
  default     = ""
  description = "URL or path of the Debian cloud image to begin with; empty: Debian 12's newest."
}

variable "debian_checksum" {
  type        = string
  default     = ""
  description = "Its checksum: sha512:<hex>, sha256:<hex> or file:<URL>; empty: Debian's list. It must be given for an image of one's own."
}

variable "ubuntu_image" {
  type        = string
  default     = ""
  description = "URL or path of the Ubuntu cloud image to begin with; empty: 24.04's newest."
}

variable "ubuntu_checksum" {
  type        = string
  default     = ""
  description = "As debian_checksum; empty: Ubuntu's list."
}

locals {
  # Good for this build only: it enters the guest as the serial number of its board and ends with the user.
  password = uuidv4()

  qemu_binary = var.arch == "arm64" ? "qemu-system-aarch64" : "qemu-system-x86_64"
  machine     = var.machine != "" ? var.machine : (var.arch == "arm64" ? "virt" : "q35")
  cpu         = var.cpu != "" ? var.cpu : (var.accelerator == "tcg" ? "max" : "host")
  # QEMU finds its own BIOS by name.
  firmware = var.firmware != "" ? var.firmware : (var.arch == "arm64" ? "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd" : "bios-256k.bin")

  debian_folder   = "https://cloud.debian.org/images/cloud/bookworm/latest"
  debian_image    = var.debian_image != "" ? var.debian_image : "${local.debian_folder}/debian-12-genericcloud-${var.arch}.qcow2"
  debian_checksum = var.debian_checksum != "" ? var.debian_checksum : "file:${local.debian_folder}/SHA512SUMS"

  ubuntu_folder   = "https://cloud-images.ubuntu.com/noble/current"
  ubuntu_image    = var.ubuntu_image != "" ? var.ubuntu_image : "${local.ubuntu_folder}/noble-server-cloudimg-${var.arch}.img"
  ubuntu_checksum = var.ubuntu_checksum != "" ? var.ubuntu_checksum : "file:${local.ubuntu_folder}/SHA256SUMS"
}
