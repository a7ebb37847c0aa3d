# SPDX-License-Identifier: GPL-2.0-only
"""A run of a seed as a directory that anybody with the same QEMU replays, with this harness or without it.

bzImage, initrd   what is booted; the initramfs has the driver, and what is to be run
replay.sh         runs it, and says whether the same bytes came out
README            what it shows
race-1.hmm, ...   the race, or each of several
machine.json      the rest of it, for `hmm-harness race machine --replay`
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.explore.seeds import Game, Played, assemble
from harness.program.program import ProgramError
from harness.program.race import Race, loose
from harness.program.text import ProgramSyntaxError, parse, render
from harness.target.clockwork import Setup, arguments

_FORMAT = 1

_SCRIPT = """\
#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs the machine once more, and compares the SHA-256 of all that comes out of it with what came out when this was
# written. Arguments are for QEMU: `./replay.sh -s -S` waits for gdb's `target remote :1234`. OUT=DIR keeps what came.
set -eu
cd "$(dirname "$0")"
qemu=${{QEMU:-qemu-system-x86_64}}
made={version}
here=$("$qemu" --version | sed -n '1s/^QEMU emulator version \\([^ ]*\\).*/\\1/p')
[ "$here" = "$made" ] || echo "this was written with QEMU $made, here is $here: another interleaving is likely" >&2
out=${{OUT:-$(mktemp -d)}}
{command} "$@"
found=$(cat "$out/console" "$out/answer" | sha256sum | cut -d ' ' -f 1)
[ -n "${{OUT:-}}" ] || rm -r "$out"
if [ "$found" = {fingerprint} ]; then
	echo "the same: $found"
else
	echo "not the same: $found, which was {fingerprint}"
	exit 1
fi
"""


@dataclass(frozen=True)
class Bundle:
    """What is to be replayed: a seed of a game, all of which is in `setup`; and what had come of it."""

    game: Game
    seed: int
    setup: Setup
    fingerprint: str
    qemu: str
    number: int


def write(directory: Path, game: Game, played: Played, *, qemu: str, says: Sequence[str]) -> None:
    """Writes the bundle. `qemu`: its version; `says`: lines about what it shows. Raises `UsageError` if it cannot."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        setup = assemble(game, played.seed, directory)
        shutil.copyfile(game.kernel, directory / "bzImage")
        told = {
            "format": _FORMAT,
            "races": [race.name for race in game.races],
            "binding": game.binding,
            "wrong": list(game.wrong),
            "rounds": game.rounds,
            "timeout": game.timeout,
            "append": setup.append,
            "shift": setup.shift,
            "seed": played.seed,
            "cpus": setup.cpus,
            "qemu": qemu,
            "round": played.number,
            "marks": game.marks,
            "fingerprint": played.run.fingerprint,
        }
        (directory / "machine.json").write_text(json.dumps(told, indent=1) + "\n")
        for number, race in enumerate(game.races, 1):
            (directory / f"race-{number}.hmm").write_text(_text(race))
        (directory / "README").write_text("\n".join([*says, ""]))
        script = directory / "replay.sh"
        script.write_text(_script(setup, qemu, played.run.fingerprint))
        script.chmod(0o755)
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}") from error


def _script(setup: Setup, qemu: str, fingerprint: str) -> str:
    here = Setup(Path("bzImage"), Path("initrd"), setup.append, setup.shift, setup.seed, setup.cpus)
    argv = arguments(here, "$qemu", console="$out/console", answer="$out/answer")
    words = [f'"{word}"' if "$out" in word or word == "$qemu" else shlex.quote(word) for word in argv]
    return _SCRIPT.format(version=shlex.quote(qemu), command=" ".join(words), fingerprint=fingerprint)


def _text(race: Race) -> str:
    """The race as it reads back: a file of one says some order, which does not count here."""
    serial = " ".join(actor.name for actor in race.actors)
    lines = [line for line in render(race).splitlines() if not line.startswith("schedule")]
    return "\n".join([*lines, f"schedule {serial}", ""])


def read(directory: Path) -> Bundle:
    """The bundle in `directory`. Raises `UsageError` if it is none."""
    try:
        told: dict[str, Any] = json.loads((directory / "machine.json").read_text())
        if told["format"] != _FORMAT:
            raise UsageError(
                f"{directory} is of another version of hmm-harness", hint="its replay.sh works all the same"
            )
        races = [
            loose(_read_race(directory / f"race-{number}.hmm", str(name)))
            for number, name in enumerate(told["races"], 1)
        ]
        game = Game(
            races=tuple(races),
            binding=str(told["binding"]),
            kernel=directory / "bzImage",
            initrd=directory / "initrd",
            append=str(told["append"]),
            wrong=tuple(map(str, told["wrong"])),
            rounds=int(told["rounds"]),
            shift=int(told["shift"]),
            cpus=int(told["cpus"]),
            timeout=float(told["timeout"]),
            marks=(int(told["marks"][0]), int(told["marks"][1])) if told["marks"] else None,
        )
        seed = int(told["seed"])
        setup = Setup(game.kernel, game.initrd, game.append, int(told["shift"]), seed, game.cpus)
        return Bundle(game, seed, setup, str(told["fingerprint"]), str(told["qemu"]), int(told["round"]))
    except (OSError, ValueError, KeyError, TypeError, ProgramError, ProgramSyntaxError) as error:
        raise UsageError(f"{directory} is no bundle: {error}") from error


def _read_race(path: Path, name: str) -> Race:
    race = parse(path.read_text(), file=str(path), name=name)
    if not isinstance(race, Race):
        raise UsageError(f"{path} is no race")
    return race
