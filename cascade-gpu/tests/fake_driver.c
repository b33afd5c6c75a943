/* A CUDA driver with as many functions as the probe calls. The test compiles it with other definitions for each
   case, so that no case depends on the environment of the process. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef TOTAL_MEM
#define TOTAL_MEM 0
#endif

unsigned cuInit(unsigned flags) { return flags == 0 ? INIT : 1; }

unsigned cuDriverGetVersion(int *version) {
    *version = 12080;
    return 0;
}

unsigned cuDeviceGetCount(int *count) {
    *count = DEVICES;
    return 0;
}

/* The handle is not the ordinal, so that a caller who mixes them up is found out. */
unsigned cuDeviceGet(int *device, int ordinal) {
    *device = 100 + ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? 0 : 101;
}

static int valid(int device) { return device >= 100 && device < 100 + DEVICES; }

unsigned cuDeviceGetName(char *name, int length, int device) {
    if (!valid(device)) return 101;
#ifdef LONG_NAME
    memset(name, 'x', (size_t)length);
#else
    snprintf(name, (size_t)length, "Fake GPU %d", device - 100);
#endif
    return 0;
}

unsigned cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)80 << 30;
    return valid(device) ? TOTAL_MEM : 101;
}

unsigned cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (!valid(device)) return 101;
    switch (attribute) {
    case 16: *value = 132; return 0;
    case 41: *value = 1; return 0;
    case 75: *value = 9; return 0;
    case 76: *value = 0; return 0;
    default: return 1;
    }
}

#ifndef WITHOUT_PCI
unsigned cuDeviceGetPCIBusId(char *id, int length, int device) {
    if (!valid(device)) return 101;
    snprintf(id, (size_t)length, "FFFF:%02X:00.0", 0xFA + device - 100);
    return 0;
}
#endif

unsigned cuGetErrorName(unsigned code, const char **name) {
    *name = code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : NULL;
    return *name ? 0 : 1;
}
