"""Speaks one sentence with espeak-ng and ends: `python demo_espeak.py`, a JSON request on standard input.

A program of its own, standard library alone: espeak-ng keeps phases and noise from one utterance to the next, so
that a second sentence in the same process would depend on the first. A fresh process always says the same.

Request: {library, data, voice, text, rate, pitch, range, seed}. Answer: one line of JSON,
{"sample_rate": Hz, "phonemes": [[sample, IPA], ...]}, then the speech as 16-bit native-endian mono PCM.
The C interface is espeak-ng 1.52's speak_lib.h.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

SYNCHRONOUS = 2
PHONEME_EVENTS_IN_IPA = 1 | 2
PHONEME_EVENT = 7
UTF8 = 1
RATE, PITCH, RANGE = 1, 3, 4


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


def speak(request: dict[str, Any]) -> tuple[int, list[tuple[int, str]], bytes]:
    """(sample rate, phonemes with their first sample, PCM). Raises RuntimeError for an unknown voice or data."""
    library = ctypes.CDLL(request["library"])
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, request["data"].encode(), PHONEME_EVENTS_IN_IPA)
    if sample_rate <= 0:
        raise RuntimeError(f"espeak-ng does not start with the data in {request['data']}: is the package whole?")
    pcm: list[bytes] = []
    phonemes: list[tuple[int, str]] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            pcm.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type:
            if events[i].type == PHONEME_EVENT:
                phonemes.append((events[i].sample, events[i].string.decode("utf-8", "ignore")))
            i += 1
        return 0

    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
    callback = signature(collect)  # held here: ctypes keeps no reference
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(request["voice"].encode()):
        raise RuntimeError(f"espeak-ng has no voice {request['voice']!r}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(request["seed"]))
    for parameter, name in ((RATE, "rate"), (PITCH, "pitch"), (RANGE, "range")):
        library.espeak_SetParameter(parameter, request[name], 0)
    text = request["text"].encode()
    library.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return sample_rate, phonemes, b"".join(pcm)


if __name__ == "__main__":
    rate, spoken, speech = speak(json.load(sys.stdin))
    header = json.dumps({"sample_rate": rate, "phonemes": spoken})
    sys.stdout.buffer.write(header.encode() + b"\n" + speech)
