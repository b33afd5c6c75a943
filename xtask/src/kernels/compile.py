"""Compiles a CUDA C file to PTX with NVRTC: compile.py SOURCE OPTION.., the PTX on standard output."""

import ctypes
import pathlib
import sys

import nvidia.cuda_nvrtc


def main() -> int:
    folder = pathlib.Path(next(iter(nvidia.cuda_nvrtc.__path__))) / "lib"
    nvrtc = ctypes.CDLL(str(folder / "libnvrtc.so.12"))
    source = pathlib.Path(sys.argv[1])
    options = [option.encode() for option in sys.argv[2:]]
    program = ctypes.c_void_p()
    code = source.read_bytes()
    if nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), code, source.name.encode(), 0, None, None
    ):
        return 1
    array = (ctypes.c_char_p * len(options))(*options)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    sys.stderr.write(
        text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    )
    if failed:
        return 1
    sys.stdout.write(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program))
    return 0


def text(size_of, read, program) -> str:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    read(program, buffer)
    return buffer.value.decode()


sys.exit(main())
