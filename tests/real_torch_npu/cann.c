/* Stands in for the CANN libraries that torch_npu links: one device whose memory is the host's, and no operators.
 *
 * With CANN_DEVICES=0 in the environment there is no device. What is not here is generated to do nothing (check.py).
 * All calls are done when they return; 0 is success.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEVICE_MISSING = 100000 };

static int present(void) {
    const char *count = getenv("CANN_DEVICES");
    return !(count && !strcmp(count, "0"));
}
int status(void) { return present() ? 0 : DEVICE_MISSING; }

/* Devices */
static _Thread_local int32_t current_device = 0;
int aclrtGetDeviceCount(uint32_t *count) { *count = present(); return 0; }
const char *aclrtGetSocName(void) { return present() ? "Ascend910B1" : 0; }
const char *aclGetRecentErrMsg(void) { return "there is no CANN here"; }
int aclrtGetDevice(int32_t *device) { *device = current_device; return status(); }
int aclrtSetDevice(int32_t device) { current_device = device; return status(); }
int aclrtGetCurrentContext(void **context) { *context = &current_device; return status(); }

/* Streams and events */
static int make(void **object) { *object = calloc(1, 64); return status(); }
int aclrtCreateStream(void **stream) { return make(stream); }
int aclrtCreateStreamWithConfig(void **stream, uint32_t priority, uint32_t flag) { return make(stream); }
int aclrtCreateEventExWithFlag(void **event, uint32_t flag) { return make(event); }
int aclrtCreateEventWithFlag(void **event, uint32_t flag) { return make(event); }
int aclrtQueryEventStatus(void *event, int *done) { *done = 1; return status(); }
int aclrtQueryEventWaitStatus(void *event, int *waiting) { *waiting = 0; return status(); }
int aclrtStreamQuery(void *stream, int *done) { *done = 1; return status(); }
int aclrtStreamGetId(void *stream, int32_t *id) { *id = 1; return status(); }

/* Memory */
static int take(void **address, size_t bytes) { return posix_memalign(address, 512, bytes + 64) ? 1 : status(); }
int aclrtMalloc(void **address, size_t bytes, int policy) { return take(address, bytes); }
int aclrtMallocAlign32(void **address, size_t bytes, int policy) { return take(address, bytes); }
int aclrtMallocHost(void **address, size_t bytes) { return take(address, bytes); }
int aclrtFree(void *address) { free(address); return status(); }
int aclrtFreeHost(void *address) { free(address); return status(); }
int aclrtGetMemInfo(int kind, size_t *unused, size_t *total) { *unused = *total = (size_t)1 << 35; return status(); }
int aclrtMemset(void *to, size_t room, int value, size_t bytes) { memset(to, value, bytes); return status(); }
int aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, int kind) {
    memcpy(to, from, bytes);
    return status();
}
int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t bytes, int kind, void *stream) {
    return aclrtMemcpy(to, room, from, bytes, kind);
}
int aclrtMemcpyAsyncWithCondition(void *to, size_t room, const void *from, size_t bytes, int kind, void *stream) {
    return aclrtMemcpy(to, room, from, bytes, kind);
}

/* Settings */
int aclrtGetSysParamOpt(int option, int64_t *value) { *value = 0; return status(); }
int aclrtCtxGetSysParamOpt(int option, int64_t *value) { *value = 0; return status(); }
int aclGetCompileoptSize(int option) { return 64; }
int aclGetCompileopt(int option, char *value, size_t room) { strcpy(value, "disable"); return status(); }
