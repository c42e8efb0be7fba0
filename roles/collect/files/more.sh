# What a person at a distance needs beside read.sh, which runs before this in the same shell: versions, states, settings.
# Read only. Lines are redacted on the controller before they are written; what may hold a patient's data is left alone.
lines() { tail -n "$1"; }

section release_file
head -n 1 "$ROOT/etc/redos-release" "$ROOT/etc/redhat-release" 2>/dev/null | grep -v '^==>' | grep . | head -n 1
section packages
if has dpkg-query; then
    ask dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' | grep -E 'nvidia|cuda|linux-(image|headers|modules)|docker|containerd|runc|postgresql|chrony|dkms|gcc-[0-9]|python3 |systemd |nftables'
    ask apt-mark showhold | sed 's/^/hold /'
fi
if has rpm; then
    ask rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n' | grep -E 'nvidia|cuda|^kernel|docker|containerd|runc|podman|postgresql|chrony|dkms|^gcc |^python3 |^systemd |nftables|versionlock' | sort
    cat "$ROOT/etc/dnf/plugins/versionlock.list" 2>/dev/null | sed 's/^/lock /'
fi
section repositories
grep -hE '^(deb|Types|URIs|Suites|Components|\[|baseurl|enabled|exclude)' "$ROOT"/etc/apt/sources.list "$ROOT"/etc/apt/sources.list.d/* "$ROOT"/etc/yum.repos.d/*.repo 2>/dev/null
grep -hE '^(Package|Pin)' "$ROOT"/etc/apt/preferences "$ROOT"/etc/apt/preferences.d/* 2>/dev/null
section dkms
has dkms && ask dkms status
section nvidia
for file in "$ROOT"/usr/lib/*/libnvidia-ml.so.* "$ROOT"/usr/lib64/libnvidia-ml.so.*; do [ -e "$file" ] && echo "library=${file##*/}"; done
has nvidia-smi && ask nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,temperature.gpu,ecc.mode.current --format=csv,noheader
grep -hoE '[0-9]{3}\.[0-9]+(\.[0-9]+)?' "$ROOT"/etc/cdi/*.yaml "$ROOT"/var/run/cdi/*.yaml 2>/dev/null | sort | uniq -c | sed 's/^ */cdi /'
grep -hE '^(blacklist|options|install) .*(nvidia|nouveau)' "$ROOT"/etc/modprobe.d/*.conf 2>/dev/null
grep -hE 'nouveau|nvidia' "$ROOT/etc/initramfs-tools/modules" 2>/dev/null
has dmesg && ask dmesg | grep -iE 'nvrm|nouveau|nvidia|Secure boot|lockdown|DIGSIG|module verification' | lines 60
section storage
ask df -PTm 2>/dev/null | grep -vE 'tmpfs|overlay|squashfs'
section memory
grep -E '^(MemTotal|MemAvailable|SwapTotal)' "$ROOT/proc/meminfo" 2>/dev/null
grep -cE '^processor' "$ROOT/proc/cpuinfo" 2>/dev/null | sed 's/^/cores=/'
grep -m1 -E '^model name' "$ROOT/proc/cpuinfo" 2>/dev/null
section time
has timedatectl && ask timedatectl show --property=Timezone --property=NTPSynchronized
has chronyc && ask chronyc -n tracking | grep -E 'Stratum|System time|Leap'
date -u +now=%Y-%m-%dT%H:%M:%SZ
section network
has ip && ask ip -br -4 addr
grep -E '^(nameserver|search)' "$ROOT/etc/resolv.conf" 2>/dev/null
has ss && ask ss -ltn | lines 60
section units
has systemctl && ask systemctl list-units --no-legend --plain --all 'outpost*' docker.service containerd.service 'postgresql*' 'chron*' nvidia-persistenced.service
section docker
has docker && ask docker version --format '{{.Server.Version}}'
has docker && ask docker images --digests --no-trunc 'outpost*'
grep -hE 'nvidia|log-driver|data-root|storage-driver|cgroup' "$ROOT/etc/docker/daemon.json" 2>/dev/null
section outpost
readlink "$ROOT/opt/outpost/current" "$ROOT/opt/outpost/previous" 2>/dev/null
# A token is nothing but a secret, which no redaction tells from a word.
for file in "$ROOT"/etc/outpost/*; do [ -r "$file" ] && [ "${file%.token}" = "$file" ] && echo "# ${file##*/}" && cat "$file"; done
for folder in "$ROOT"/var/lib/outpost/*/; do
    # Names of files hold UIDs: only how many and how much.
    for part in spool outbox quarantine; do
        [ -d "$folder$part" ] && name=${folder%/} && echo "${name##*/}/$part files=$(find "$folder$part" -type f | wc -l) mib=$(du -sm "$folder$part" | cut -f1)"
    done
done
section journal
has journalctl && ask journalctl --no-pager -o short-iso -n 200 -u 'outpost*'
has journalctl && ask journalctl --no-pager -o short-iso -n 40 -p warning -u docker.service -u containerd.service
section end
