/* Preloaded: counts the file-system calls under one folder and fails one.

   shim_arm(folder, call, fault): from now on call number `call` (from 0; -1:
   none) under `folder` is a fault: 0 kill, 1 half a write and kill, 2 ENOSPC
   for it and all later calls that need space, 3 EIO.
   shim_calls(): how many calls there were.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL, TORN, FULL, BROKEN };
#define FILES 65536
static char folder[4096];
static atomic_int calls, armed;
static int chosen = -1, fault;
static atomic_char inside[FILES];

void shim_arm(const char *path, int call, int kind) {
  snprintf(folder, sizeof folder, "%s", path);
  chosen = call; fault = kind; calls = 0; armed = 1;
}
int shim_calls(void) { return calls; }

static int under(const char *path) {
  return armed && path && !strncmp(path, folder, strlen(folder));
}
static int file(int fd) { return armed && fd >= 0 && fd < FILES && inside[fd]; }
static int at(int fd, const char *path) {
  return path && path[0] == '/' ? under(path) : file(fd);
}
static void die(void) { kill(getpid(), SIGKILL), pause(); }

/* 1: the call must fail, errno is set. `space`: it needs room on the disk. */
static int fails(int space) {
  int call = atomic_fetch_add(&calls, 1);
  if (chosen < 0 || call < chosen) return 0;
  if (fault == FULL && space) { errno = ENOSPC; return 1; }
  if (call != chosen) return 0;
  if (fault == KILL || fault == TORN) die();
  if (fault == BROKEN) { errno = EIO; return 1; }
  return 0;
}
/* For writes: 1 to fail; a torn one writes half by itself. */
static int torn(void) {
  return fault == TORN && chosen >= 0 && calls == chosen;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE(flags) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | __O_TMPFILE)) { \
    va_list list; va_start(list, flags); \
    mode = va_arg(list, mode_t); va_end(list); \
  }
static int opened(int fd, int is) {
  if (fd >= 0 && fd < FILES) inside[fd] = is;
  return fd;
}
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); MODE(flags); int is = under(path); \
    if (is && fails(flags & O_CREAT)) return -1; \
    return opened(real(path, flags, mode), is); \
  }
OPEN(open) OPEN(open64)
#define OPENAT(name) \
  int name(int fd, const char *path, int flags, ...) { \
    REAL(name); MODE(flags); int is = at(fd, path); \
    if (is && fails(flags & O_CREAT)) return -1; \
    return opened(real(fd, path, flags, mode), is); \
  }
OPENAT(openat) OPENAT(openat64)
int close(int fd) {
  REAL(close);
  if (fd >= 0 && fd < FILES) inside[fd] = 0;
  return real(fd);
}
ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  if (file(fd)) {
    if (torn()) { real(fd, data, size / 2); die(); }
    if (fails(1)) return -1;
  }
  return real(fd, data, size);
}
#define PWRITE(name, offset_type) \
  ssize_t name(int fd, const void *data, size_t size, offset_type where) { \
    REAL(name); \
    if (file(fd)) { \
      if (torn()) { real(fd, data, size / 2, where); die(); } \
      if (fails(1)) return -1; \
    } \
    return real(fd, data, size, where); \
  }
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  if (file(fd)) {
    if (torn()) { write(fd, parts[0].iov_base, parts[0].iov_len / 2); die(); }
    if (fails(1)) return -1;
  }
  return real(fd, parts, count);
}
#define ON_FILE(name, space) \
  int name(int fd) { \
    REAL(name); \
    if (file(fd) && fails(space)) return -1; \
    return real(fd); \
  }
ON_FILE(fsync, 1) ON_FILE(fdatasync, 1)
int ftruncate(int fd, off_t size) {
  REAL(ftruncate);
  if (file(fd) && fails(1)) return -1;
  return real(fd, size);
}
int rename(const char *a, const char *b) {
  REAL(rename);
  if ((under(a) || under(b)) && fails(1)) return -1;
  return real(a, b);
}
int renameat(int c, const char *a, int d, const char *b) {
  REAL(renameat);
  if ((at(c, a) || at(d, b)) && fails(1)) return -1;
  return real(c, a, d, b);
}
int renameat2(int c, const char *a, int d, const char *b, unsigned flags) {
  REAL(renameat2);
  if ((at(c, a) || at(d, b)) && fails(1)) return -1;
  return real(c, a, d, b, flags);
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  if (under(path) && fails(1)) return -1;
  return real(path, mode);
}
int mkdirat(int fd, const char *path, mode_t mode) {
  REAL(mkdirat);
  if (at(fd, path) && fails(1)) return -1;
  return real(fd, path, mode);
}
#define ON_PATH(name) \
  int name(const char *path) { \
    REAL(name); \
    if (under(path) && fails(0)) return -1; \
    return real(path); \
  }
ON_PATH(unlink) ON_PATH(rmdir)
int unlinkat(int fd, const char *path, int flags) {
  REAL(unlinkat);
  if (at(fd, path) && fails(0)) return -1;
  return real(fd, path, flags);
}
