/* Counts how often a process asks the system for entropy or for the time, by every way that leads past the ports:
   libc's functions, and the raw system call that some libraries use. Told at the end, into the file WITNESS. With
   HURRY in the environment clocks run three times as fast, from another day on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>

static unsigned long entropy, clocks;

static int hurries(void) {
    static int known = -1;
    if (known < 0) known = getenv("HURRY") != NULL;
    return known;
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

ssize_t getrandom(void *buffer, size_t size, unsigned flags) {
    static ssize_t (*next)(void *, size_t, unsigned);
    if (!next) next = real("getrandom");
    __sync_fetch_and_add(&entropy, 1);
    return next(buffer, size, flags);
}

int getentropy(void *buffer, size_t size) {
    static int (*next)(void *, size_t);
    if (!next) next = real("getentropy");
    __sync_fetch_and_add(&entropy, 1);
    return next(buffer, size);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = real("clock_gettime");
    __sync_fetch_and_add(&clocks, 1);
    int failed = next(clock, at);
    if (!failed && hurries()) at->tv_sec = 3 * at->tv_sec + 1000000;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    static int (*next)(struct timeval *, void *);
    if (!next) next = real("gettimeofday");
    __sync_fetch_and_add(&clocks, 1);
    return next(at, zone);
}

time_t time(time_t *at) {
    static time_t (*next)(time_t *);
    if (!next) next = real("time");
    __sync_fetch_and_add(&clocks, 1);
    return next(at);
}

long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next) next = real("syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (number == SYS_getrandom) __sync_fetch_and_add(&entropy, 1);
    if (number == SYS_clock_gettime || number == SYS_gettimeofday) __sync_fetch_and_add(&clocks, 1);
    return next(number, a, b, c, d, e, f);
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("WITNESS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%lu %lu\n", entropy, clocks);
    fclose(file);
}
