#!/usr/bin/env bash
# Makes the image's root file system: the programs, the shared libraries that
# they need, and nothing else. Runs as root, on the image's own base.
#
# Usage: collect.sh STAGED ROOT VARIANT
#   STAGED   output of stage.sh
#   VARIANT  cpu: stand-ins take the place of the CUDA runtime; gpu: LibTorch's
#            CUDA libraries out of the wheels in ${CUDA_WHEELS:-/cuda}
set -euo pipefail
staged=$1
root=$2
variant=$3
here=$(dirname "$0")
lib=$root/usr/lib/esper

mkdir -p "$root"/{dev,etc,proc,sys,tmp,usr/bin,usr/share/esper,var/lib} "$lib"
chmod 1777 "$root/tmp"
install -d -o 65532 -g 65532 "$root"/var/lib/esper{,/checkpoints,/run}
install -m 755 "$staged"/bin/* "$root/usr/bin/"
install -m 644 "$staged"/lib/*.so* "$lib/"
install -m 644 "$staged"/share/* "$root/usr/share/esper/"

case "$variant" in
  cpu | mpi)
    rm -f "$lib"/libcudart.so.* "$lib"/libcupti.so.*
    "$here/cuda_stand_ins.sh" "$lib"
    ;;
  gpu) "$here/cuda_libraries.sh" "${CUDA_WHEELS:-/cuda}" "$lib" ;;
  *) echo "collect: unknown variant $variant" >&2; exit 2 ;;
esac
strip --strip-unneeded "$root"/usr/bin/* "$lib"/lib{torch_cpu,c10}.so

# Every library that the loader finds for them, "NAME PATH" a line. The driver's
# own (libcuda.so.1) comes with the node.
closure=$(for file in "$root"/usr/bin/* "$lib"/*.so*; do
  LD_LIBRARY_PATH="$lib" ldd "$file"
done | grep -v 'libcuda\.so\.1 ' | sort -u)
if grep 'not found' <<<"$closure"; then
  echo "collect: libraries are missing" >&2
  exit 1
fi
# glibc goes where its loader looks, the others beside LibTorch.
triplet=$(gcc -print-multiarch)
mkdir -p "$root/usr/lib/$triplet"
ln -s usr/lib "$root/lib"
owners=""
while read -r name path; do
  # dpkg knows a file by one of the two names that it has.
  package=$(dpkg-query -S "$path" 2>/dev/null || dpkg-query -S "/usr$path")
  package=${package%%:*}
  owners+="$package"$'\n'
  target=$lib
  if [ "$package" = libc6 ]; then target=$root/usr/lib/$triplet; fi
  install -m 755 "$path" "$target/$name"
done < <(awk -v own="$root" '$2 == "=>" && index($3, own) != 1 {print $1, $3}' \
  <<<"$closure" | sort -u)

# The loader itself, under the name that programs have for it.
loader=$(awk '$1 ~ /^\/lib.*ld-linux/ {print $1}' <<<"$closure" | sort -u)
mkdir -p "$root$(dirname "$loader" | sed 's,^/lib64,/usr/lib64,')"
if [ -d "$root/usr/lib64" ]; then ln -s usr/lib64 "$root/lib64"; fi
install -m 755 "$loader" "$root$loader"

echo 'esper:x:65532:65532::/var/lib/esper:/sbin/nologin' >"$root/etc/passwd"
echo 'esper:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo /usr/lib/esper >"$root/etc/ld.so.conf"
ldconfig -r "$root"

# What is in it, with versions and licences.
list=$root/usr/share/esper/packages.txt
for package in $(sort -u <<<"$owners"); do
  dpkg-query -W -f='${Package} ${Version}\n' "$package" | head -n 1
  install -D -m 644 "/usr/share/doc/$package/copyright" \
    "$root/usr/share/doc/$package/copyright"
done >"$list"

# Every symbol of every program must be there.
for program in "$root"/usr/bin/*; do
  name=/usr/bin/$(basename "$program")
  LD_BIND_NOW=1 chroot "$root" "$name" --help >/tmp/help 2>&1 || true
  grep -q -e '--address' -e '--coordinator' /tmp/help || {
    echo "collect: $name does not start:" >&2
    cat /tmp/help >&2
    exit 1
  }
done
echo "collect: $(wc -l <"$list") packages, $(du -sm "$root" | cut -f1) MiB"
