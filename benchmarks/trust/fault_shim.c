/* Counts the calls of a process that change files below one folder, and makes the k-th of them go wrong.
 *
 *     gcc -O2 -shared -fPIC -o fault_shim.so fault_shim.c -ldl ; LD_PRELOAD=./fault_shim.so ...
 *
 * Every library of the process is seen, in whatever language it is written, as long as it calls the C library (the
 * benchmark compares the counts with those of strace). Linux with glibc only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WATCH, KILL, FULL, BROKEN, ONCE, PAUSE }; /* what to do at the k-th call */
enum { MAKES = 1, FREES = 2 };                   /* whether a call needs room, or only gives some back */

static char root[PATH_MAX];
static long count, at;
static int kind, wrong, armed;
static void (*hook)(long);

/* kind KILL: SIGKILL before the call, and after half of the bytes of a write. FULL: from the k-th call on, whatever
 * needs room fails with `error`. BROKEN: everything fails from there on. ONCE: only the k-th fails. PAUSE: `called` is
 * called before every call. */
void fault_arm(const char *folder, long k, int what, int error, void (*called)(long)) {
    strncpy(root, folder, sizeof root - 1);
    count = 0, at = k, kind = what, wrong = error, hook = called, armed = 1;
}

long fault_disarm(void) {
    armed = 0;
    return count;
}

static int below(const char *path) {
    size_t n = strlen(root);
    return !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int named(int dir, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (!armed || !path) return 0;
    if (path[0] == '/') return below(path);
    if (dir == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, whole, PATH_MAX - 1);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    strcat(strcat(whole, "/"), path);
    return below(whole);
}

static int opened(int fd) { return armed ? named(fd, ".") : 0; }

/* Whether the call is to be made; otherwise errno is set. */
static int allowed(int does) {
    long now = __sync_add_and_fetch(&count, 1);
    if (kind == PAUSE) {
        armed = 0;
        hook(now);
        armed = 1;
        return 1;
    }
    if (now == at && kind == KILL) kill(getpid(), SIGKILL);
    if ((kind == ONCE && now == at) || (kind == BROKEN && now >= at) || (kind == FULL && now >= at && does == MAKES)) {
        errno = wrong;
        return 0;
    }
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define PATH_CALL(name, does, where, declared, passed, ...) \
    int name declared { \
        REAL(int, name, __VA_ARGS__); \
        if ((where) && !allowed(does)) return -1; \
        return real passed; \
    }

PATH_CALL(mkdir, MAKES, named(AT_FDCWD, p), (const char *p, mode_t m), (p, m), const char *, mode_t)
PATH_CALL(mkdirat, MAKES, named(d, p), (int d, const char *p, mode_t m), (d, p, m), int, const char *, mode_t)
PATH_CALL(rmdir, FREES, named(AT_FDCWD, p), (const char *p), (p), const char *)
PATH_CALL(unlink, FREES, named(AT_FDCWD, p), (const char *p), (p), const char *)
PATH_CALL(unlinkat, FREES, named(d, p), (int d, const char *p, int f), (d, p, f), int, const char *, int)
PATH_CALL(remove, FREES, named(AT_FDCWD, p), (const char *p), (p), const char *)
PATH_CALL(rename, MAKES, named(AT_FDCWD, a) || named(AT_FDCWD, b), (const char *a, const char *b), (a, b),
          const char *, const char *)
PATH_CALL(renameat, MAKES, named(d, a) || named(e, b), (int d, const char *a, int e, const char *b), (d, a, e, b),
          int, const char *, int, const char *)
PATH_CALL(renameat2, MAKES, named(d, a) || named(e, b), (int d, const char *a, int e, const char *b, unsigned f),
          (d, a, e, b, f), int, const char *, int, const char *, unsigned)
PATH_CALL(link, MAKES, named(AT_FDCWD, b), (const char *a, const char *b), (a, b), const char *, const char *)
PATH_CALL(linkat, MAKES, named(e, b), (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), int,
          const char *, int, const char *, int)
PATH_CALL(symlink, MAKES, named(AT_FDCWD, b), (const char *a, const char *b), (a, b), const char *, const char *)
PATH_CALL(symlinkat, MAKES, named(d, b), (const char *a, int d, const char *b), (a, d, b), const char *, int,
          const char *)
PATH_CALL(chmod, FREES, named(AT_FDCWD, p), (const char *p, mode_t m), (p, m), const char *, mode_t)
PATH_CALL(fchmod, FREES, opened(d), (int d, mode_t m), (d, m), int, mode_t)
PATH_CALL(fchmodat, FREES, named(d, p), (int d, const char *p, mode_t m, int f), (d, p, m, f), int, const char *,
          mode_t, int)
PATH_CALL(truncate, MAKES, named(AT_FDCWD, p), (const char *p, off_t n), (p, n), const char *, off_t)
PATH_CALL(truncate64, MAKES, named(AT_FDCWD, p), (const char *p, off_t n), (p, n), const char *, off_t)
PATH_CALL(ftruncate, MAKES, opened(d), (int d, off_t n), (d, n), int, off_t)
PATH_CALL(ftruncate64, MAKES, opened(d), (int d, off_t n), (d, n), int, off_t)
PATH_CALL(fallocate, MAKES, opened(d), (int d, int m, off_t a, off_t n), (d, m, a, n), int, int, off_t, off_t)
PATH_CALL(fallocate64, MAKES, opened(d), (int d, int m, off_t a, off_t n), (d, m, a, n), int, int, off_t, off_t)
PATH_CALL(fsync, MAKES, opened(d), (int d), (d), int)
PATH_CALL(fdatasync, MAKES, opened(d), (int d), (d), int)
PATH_CALL(utimensat, FREES, named(d, p), (int d, const char *p, const struct timespec t[2], int f), (d, p, t, f), int,
          const char *, const struct timespec *, int)

#define OPEN(name, where, declared, passed, ...) \
    int name declared { \
        REAL(int, name, __VA_ARGS__); \
        mode_t m = 0; \
        if (f & (O_CREAT | O_TMPFILE)) { \
            va_list more; \
            va_start(more, f); \
            m = va_arg(more, int); \
            va_end(more); \
        } \
        if ((f & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) && (where) && !allowed(MAKES)) return -1; \
        return real passed; \
    }

OPEN(open, named(AT_FDCWD, p), (const char *p, int f, ...), (p, f, m), const char *, int, ...)
OPEN(open64, named(AT_FDCWD, p), (const char *p, int f, ...), (p, f, m), const char *, int, ...)
OPEN(openat, named(d, p), (int d, const char *p, int f, ...), (d, p, f, m), int, const char *, int, ...)
OPEN(openat64, named(d, p), (int d, const char *p, int f, ...), (d, p, f, m), int, const char *, int, ...)

/* A disk is full, and a process killed, in the middle of a write. */
#define WRITE(name, declared, passed, half, ...) \
    ssize_t name declared { \
        REAL(ssize_t, name, __VA_ARGS__); \
        if (opened(d)) { \
            if (count + 1 == at && n > 1 && (kind == KILL || kind == FULL)) { \
                ssize_t done = real half; \
                if (kind == FULL && done > 0) { \
                    __sync_add_and_fetch(&count, 1); \
                    return done; \
                } \
            } \
            if (!allowed(MAKES)) return -1; \
        } \
        return real passed; \
    }

WRITE(write, (int d, const void *b, size_t n), (d, b, n), (d, b, n / 2), int, const void *, size_t)
WRITE(pwrite, (int d, const void *b, size_t n, off_t o), (d, b, n, o), (d, b, n / 2, o), int, const void *, size_t,
      off_t)
WRITE(pwrite64, (int d, const void *b, size_t n, off_t o), (d, b, n, o), (d, b, n / 2, o), int, const void *, size_t,
      off_t)
WRITE(writev, (int d, const struct iovec *b, int n), (d, b, n), (d, b, n / 2), int, const struct iovec *, int)
WRITE(sendfile, (int d, int s, off_t *o, size_t n), (d, s, o, n), (d, s, o, n / 2), int, int, off_t *, size_t)
WRITE(sendfile64, (int d, int s, off_t *o, size_t n), (d, s, o, n), (d, s, o, n / 2), int, int, off_t *, size_t)
