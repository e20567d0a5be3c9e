"""Emulated ARM64: the same .tflite on cores of phones, in qemu, with its instructions counted. Never called on-device."""
