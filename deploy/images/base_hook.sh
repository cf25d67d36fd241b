#!/bin/sh
# The last step of the base: base_hook.sh ROOT. mmdebstrap runs it after all packages have been unpacked.
#
# It leaves CPython and its libraries. It removes the package manager and everything that only its scripts need, and
# records the remaining packages where scanners look for them (in one file per package, because nothing is ever
# installed or removed here).
set -eu
# The folders are those of an image, whose user is not the one who makes it.
umask 022
root="$1"
unneeded="debconf dpkg tar"

mkdir -p "$root/var/lib/dpkg/status.d"
for package in "$root"/var/cache/apt/archives/*.deb; do
  name="$(dpkg-deb -f "$package" Package)"
  case " $unneeded " in
    *" $name "*)
      dpkg-deb --fsys-tarfile "$package" | tar t | grep -v '/$' | (cd "$root" && xargs -r -d '\n' rm -f --) ;;
    *)
      dpkg-deb -f "$package" Package Version Architecture Maintainer >"$root/var/lib/dpkg/status.d/$name" ;;
  esac
done

rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/lintian "$root"/usr/share/debconf \
  "$root"/usr/share/perl5 "$root"/etc/cron.daily "$root"/etc/dpkg "$root"/etc/logrotate.d

ln -s python3.11 "$root/usr/bin/python3"
mkdir -p "$root/proc" "$root/sys" "$root/run" "$root/app" "$root/etc/ssl/certs"
printf 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="CPython on Debian 12"\n' >"$root/etc/os-release"
