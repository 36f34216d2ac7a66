/* Short: the calls that a network file system may answer otherwise than a local disk does.

   For the files below FOLDER, reads and writes move a part of what was asked for, and every third
   call is interrupted. With NO_ADVICE the kernel takes none; with NO_MAP it maps no file. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name, ...) ((ssize_t(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))
#define CUT(fd, count)                                                                             \
    if (is_below(fd)) {                                                                            \
        if (++calls % 3 == 0) {                                                                    \
            errno = EINTR;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        count = part_of(count);                                                                    \
    }

static unsigned calls, state = 1;

static int is_below(int fd) {
    char link[64], path[4096];
    const char *folder = getenv("FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return folder && length > (ssize_t)strlen(folder) && !strncmp(path, folder, strlen(folder));
}

static size_t part_of(size_t count) {
    state = state * 1103515245 + 12345;
    return count ? 1 + (state >> 8) % count : 0;
}

ssize_t read(int fd, void *to, size_t count) {
    CUT(fd, count)
    return REAL("read", int, void *, size_t)(fd, to, count);
}

ssize_t write(int fd, const void *from, size_t count) {
    CUT(fd, count)
    return REAL("write", int, const void *, size_t)(fd, from, count);
}

ssize_t pread64(int fd, void *to, size_t count, off64_t start) {
    CUT(fd, count)
    return REAL("pread64", int, void *, size_t, off64_t)(fd, to, count, start);
}

ssize_t pread(int fd, void *to, size_t count, off_t start) { return pread64(fd, to, count, start); }

ssize_t preadv64(int fd, const struct iovec *to, int parts, off64_t start) {
    (void)parts; /* the first one is a part of what was asked for */
    return pread64(fd, to[0].iov_base, to[0].iov_len, start);
}

ssize_t preadv(int fd, const struct iovec *to, int parts, off_t start) {
    return preadv64(fd, to, parts, start);
}

ssize_t preadv64v2(int fd, const struct iovec *to, int parts, off64_t start, int flags) {
    (void)flags;
    return preadv64(fd, to, parts, start);
}

ssize_t preadv2(int fd, const struct iovec *to, int parts, off_t start, int flags) {
    return preadv64v2(fd, to, parts, start, flags);
}

void *mmap64(void *at, size_t length, int access, int flags, int fd, off64_t start) {
    if (getenv("NO_MAP") && fd >= 0 && is_below(fd)) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    void *(*real)(void *, size_t, int, int, int, off64_t) = dlsym(RTLD_NEXT, "mmap64");
    return real(at, length, access, flags, fd, start);
}

void *mmap(void *at, size_t length, int access, int flags, int fd, off_t start) {
    return mmap64(at, length, access, flags, fd, start);
}

int madvise(void *at, size_t length, int advice) {
    if (getenv("NO_ADVICE")) {
        errno = ENOSYS;
        return -1;
    }
    return (int)REAL("madvise", void *, size_t, int)(at, length, advice);
}

int posix_fadvise64(int fd, off64_t start, off64_t length, int advice) {
    if (getenv("NO_ADVICE"))
        return ENOSYS;
    return (int)REAL("posix_fadvise64", int, off64_t, off64_t, int)(fd, start, length, advice);
}

int posix_fadvise(int fd, off_t start, off_t length, int advice) {
    return posix_fadvise64(fd, start, length, advice);
}
