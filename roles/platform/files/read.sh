# What a host is, as sections of text: read only, POSIX sh and coreutils, no Python, nothing that must be installed first.
# The controller makes facts of it (service/outpost/platform/facts.py). Sections that are not there stay unknown.
#   ROOT        directory that stands for /, for tests
#   OS_RELEASE  file that names the system      PCI_ROOT  directory that lists PCI devices
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
section() { echo "=== $1 ==="; }
# Programs are asked with a bound; of a recorded tree, only those that are recorded in it.
has() { if [ -n "$ROOT" ]; then [ -x "$ROOT/usr/bin/$1" ]; else command -v "$1" >/dev/null; fi; }
ask() {
    program=$1
    shift
    [ -z "$ROOT" ] || program=$ROOT/usr/bin/$program
    timeout 15 "$program" "$@" 2>/dev/null </dev/null
}
kernel=$(cat "$ROOT/proc/sys/kernel/osrelease" 2>/dev/null)

section os_release
cat "$OS_RELEASE"
section package_tools
for tool in apt-get dnf; do
    has "$tool" && echo "$tool"
done
section arch
ask uname -m

section pci
for device in "$PCI_ROOT"/*; do
    [ -r "$device/vendor" ] || continue
    driver=$(readlink "$device/driver") || driver=none
    echo "$(cat "$device/vendor" "$device/device" "$device/class" | tr '\n' ' ')${device##*/} $(cat "$device/subsystem_vendor" "$device/subsystem_device" 2>/dev/null | tr '\n' ' ')${driver##*/}"
done | grep -E '^0x10de |^0x[0-9a-f]+ 0x[0-9a-f]+ 0x03'

section astra
echo "version=$(head -n 1 "$ROOT/etc/astra_version" 2>/dev/null)"
echo "build=$(head -n 1 "$ROOT/etc/astra/build_version" 2>/dev/null)"
grep -i '^DESCRIPTION=' "$ROOT/etc/astra_license" 2>/dev/null | sed 's/^DESCRIPTION=/license=/'
if has astra-modeswitch; then
    echo "mode=$(ask astra-modeswitch get)"
    echo "mode_name=$(ask astra-modeswitch getname)"
fi
section digsig
grep -h '^ *DIGSIG_' "$ROOT/etc/digsig/digsig_initramfs.conf" 2>/dev/null
grep -q '^digsig_verif ' "$ROOT/proc/modules" 2>/dev/null && echo loaded=yes
has astra-digsig-control && echo "control=$(ask astra-digsig-control status | tr '\n' ' ')"
section locks
for lock in interpreters-lock nochmodx-lock bash-lock sudo-control ptrace-lock mic-control mac-control; do
    if has "astra-$lock"; then
        answer=$(ask "astra-$lock" status)
        echo "$lock=$? $(echo "$answer" | tr '\n' ' ')"
    fi
done

section kernel
echo "release=$kernel"
sed 's/^/version=/' "$ROOT/proc/version" 2>/dev/null
for modules in "$ROOT"/lib/modules/*/; do
    [ -e "$modules" ] || continue
    name=${modules%/}
    if [ -e "$modules/build/Makefile" ]; then echo "installed=${name##*/} headers"; else echo "installed=${name##*/}"; fi
done
grep -E '^(nvidia|nouveau)[a-z_]* ' "$ROOT/proc/modules" 2>/dev/null | sed 's/ .*//; s/^/module=/'
[ -r "$ROOT/sys/module/nvidia/version" ] && echo "nvidia=$(cat "$ROOT/sys/module/nvidia/version")"
[ -r "$ROOT/proc/driver/nvidia/version" ] && grep -q 'Open Kernel Module' "$ROOT/proc/driver/nvidia/version" && echo "nvidia_kind=open"
for tool in gcc make dkms; do
    has "$tool" && echo "$tool=$(ask "$tool" --version | head -n 1)"
done
section kernel_owner
# RED OS: kernel or kernel-lt is not in `uname -r`, only in the package's name.
if has rpm; then
    for owned in modules.builtin modules.order; do
        [ -e "$ROOT/lib/modules/$kernel/$owned" ] && ask rpm -qf --qf '%{NAME}\n' "/lib/modules/$kernel/$owned" | grep -v ' ' && break
    done
fi
section headers_candidate
# Asking the package manager costs a second: only where a module may have to be built.
if grep -qs '^0x10de' "$PCI_ROOT"/*/vendor; then
    if has apt-cache; then
        ask apt-cache policy "linux-headers-$kernel" | sed -n 's/^ *Candidate: */candidate=/p'
    elif has dnf; then
        # From its cache alone: a train has no link. Without a cache it fails, and nothing is known.
        found=$(ask dnf -q -C repoquery --qf '%{name}-%{version}-%{release}.%{arch}' 'kernel*-devel') && echo asked=dnf
        echo "$found" | grep -F -- "-$kernel" | sed 's/^/candidate=/'
    fi
fi

section secure_boot
[ -d "$ROOT/sys/firmware/efi" ] && echo firmware=uefi || echo firmware=bios
for variable in SecureBoot SetupMode; do
    # Four bytes of attributes, then the value.
    for file in "$ROOT/sys/firmware/efi/efivars/$variable"-*; do
        [ -r "$file" ] && echo "$variable=$(od -An -tu1 -j4 -N1 "$file" | tr -d ' ')"
    done
done
[ -r "$ROOT/sys/kernel/security/lockdown" ] && echo "lockdown=$(cat "$ROOT/sys/kernel/security/lockdown")"
if has mokutil; then
    echo "mokutil=$(ask mokutil --sb-state | tr '\n' ' ')"
    for key in /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der; do
        # It says "is already enrolled" and exits 1 in some versions, 0 in others: the words count.
        [ -e "$ROOT$key" ] && echo "key=$key $(ask mokutil --test-key "$key" | tr '\n' ' ')"
    done
fi
section virtualization
has systemd-detect-virt && ask systemd-detect-virt
section python
"$ROOT/usr/bin/python3" --version 2>/dev/null </dev/null | cut -d' ' -f2
true
