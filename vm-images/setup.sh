#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# setup.sh [dev|bench]
#
# Gets a machine ready: the Debian packages of vm-images/host-packages, and .venv/ with hmm-harness in it.
# dev adds what the tests and the linters need, bench what the measurements are compared with (see the extras
# of pyproject.toml). Does nothing, at once, when all is there.
#
# Exit codes: 0 ready; 1 a step failed; 2 wrong argument; 3 something has to be installed by hand.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
packages=$root/vm-images/host-packages
venv=$root/.venv
stamp=$venv/.ready
level=run

case ${1-run} in
run | dev | bench) level=${1-run} ;;
*)
	echo "usage: ${0##*/} [dev|bench]" >&2
	exit 2
	;;
esac

# present PROOF: is that command, or a file that matches that pattern, there?
present() {
	case $1 in
	/*)
		for file in $1; do # unquoted: a pattern
			[ ! -e "$file" ] || return 0
		done
		return 1
		;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

# One line for each package that is not there: its name and who needs it.
missing_packages() {
	while read -r package proof who why; do
		case $package in '' | '#'*) continue ;; esac
		[ "$who" = run ] || [ "$who" = "$level" ] || continue
		present "$proof" || printf '%s\t%s\n' "$package" "$why"
	done <"$packages"
}

install_packages() {
	names=$(printf '%s\n' "$1" | cut -f1 | tr '\n' ' ')
	names=${names% }
	echo "Not installed on this machine:" >&2
	printf '%s\n' "$1" | while IFS='	' read -r package why; do
		printf '    %-18s %s\n' "$package" "$why" >&2
	done

	if ! command -v apt-get >/dev/null 2>&1; then
		echo "There is no apt-get here: install what provides these, by the names of your distribution." >&2
		echo "Or use the ready Debian 12 machine of the Vagrantfile: vagrant up" >&2
		exit 3
	fi
	as_root=
	if [ "$(id -u)" -ne 0 ]; then
		as_root=sudo
		if ! command -v sudo >/dev/null 2>&1; then
			echo "There is no sudo here. As root: apt-get install --no-install-recommends $names" >&2
			exit 3
		fi
	fi
	if [ -t 0 ] && [ -z "${CI-}" ]; then
		printf 'Install them with apt-get? [Y/n] ' >&2
		read -r answer || answer=n
		case $answer in
		'' | [Yy]*) ;;
		*)
			echo "Nothing was installed." >&2
			exit 3
			;;
		esac
	else
		echo "Installing them with apt-get." >&2
	fi
	$as_root apt-get -q update >&2
	# shellcheck disable=SC2086 # names are words
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q --yes --no-install-recommends \
		-o Dpkg::Use-Pty=0 install $names >&2
}

# The first Python that is new enough: $PYTHON, the system's, any other.
find_python() {
	for python in ${PYTHON-} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
		if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			echo "$python"
			return
		fi
	done
	echo "Python 3.11 or later is needed; $(python3 --version 2>&1) is what there is." >&2
	echo "On Debian 12 or later: apt-get install python3 python3-venv" >&2
	exit 3
}

# What .venv/ is made from; another path, because scripts in it name theirs.
content() {
	echo "$root"
	cat "$root/pyproject.toml" "$packages" "$0"
}

# The stamp has a line "CONTENT LEVEL" for each level that is installed.
ready() {
	[ -x "$venv/bin/hmm-harness" ] && grep -qxF "$now $level" "$stamp" 2>/dev/null
}

make_venv() {
	echo "Installing Python packages into .venv/" >&2
	python=$(find_python)
	if ! grep -qF "$now" "$stamp" 2>/dev/null; then
		rm -f "$stamp"
		"$python" -m venv --clear "$venv"
	fi
	extra=
	[ "$level" = run ] || extra="[$level]"
	"$venv/bin/python" -m pip --disable-pip-version-check install --progress-bar off --editable "$root$extra" >&2
	printf '%s\n' "$now run" "$now $level" >>"$stamp"
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
	install_packages "$missing"
	missing=$(missing_packages)
	if [ -n "$missing" ]; then
		echo "Installed, but still not to be found:" >&2
		printf '%s\n' "$missing" >&2
		exit 1
	fi
fi

now=$(content | cksum)
if ! ready; then
	# Two at once: the second waits, and finds all done.
	exec 9<"$root/pyproject.toml"
	flock 9
	ready || make_venv
fi
