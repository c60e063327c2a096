/* Moves CLOCK_REALTIME by CLOCK_AHEAD_SECONDS for the process that preloads this library, and for its children.
 *
 * No other clock is moved, in particular not CLOCK_MONOTONIC: time-outs and sleeps take the given time.
 * A call that waits until a point in time passes it to the kernel, which does not know the moved clock. The library
 * therefore moves that time back first. If the call does not name its clock, the value tells it: a time of
 * CLOCK_REALTIME is in this century, and CLOCK_MONOTONIC counts from the start of the machine.
 *
 * Not moved: times that the kernel writes (of files), and calls that bypass the C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define THIS_CENTURY 946684800
#define EXPORTED __attribute__((visibility("default")))

static long ahead(void) {
    static long seconds;
    static int is_read;
    if (!__atomic_load_n(&is_read, __ATOMIC_ACQUIRE)) {
        const char *said = getenv("CLOCK_AHEAD_SECONDS");
        seconds = said ? atol(said) : 0;
        __atomic_store_n(&is_read, 1, __ATOMIC_RELEASE);
    }
    return seconds;
}

/* Read before the program starts: it may overwrite its environment (PostgreSQL does, for its process title). */
__attribute__((constructor)) static void at_start(void) { ahead(); }

static int is_moved(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

/* Reading the clock. */

static int (*real_clock_gettime)(clockid_t, struct timespec *);

static int really(clockid_t clock, struct timespec *at) {
    if (!real_clock_gettime)
        real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real_clock_gettime ? real_clock_gettime(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
}

EXPORTED int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = really(clock, at);
    if (!failed && is_moved(clock))
        at->tv_sec += ahead();
    return failed;
}

EXPORTED int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    if (zone)
        *(struct timezone *)zone = (struct timezone){0, 0};
    if (!at)
        return 0;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

EXPORTED time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

EXPORTED int timespec_get(struct timespec *at, int base) {
    if (base != TIME_UTC)
        return 0;
    return clock_gettime(CLOCK_REALTIME, at) ? 0 : base;
}

/* Waiting until a point in time. */

static const struct timespec *moved_back(const struct timespec *until, struct timespec *moved) {
    if (!until || until->tv_sec < THIS_CENTURY)
        return until;
    *moved = *until;
    if (__builtin_sub_overflow(until->tv_sec, ahead(), &moved->tv_sec))
        moved->tv_sec = until->tv_sec; /* no end in either case */
    else if (moved->tv_sec < 0)
        moved->tv_sec = 0;
    return moved;
}

static void *next_of(const char *name, const char *version) {
    /* Two versions of one name exist on x86-64; the older one takes another type of condition. */
    void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    return found ? found : dlsym(RTLD_NEXT, name);
}

#define NEXT(name, version)                                                                                            \
    static __typeof__(&name) next;                                                                                     \
    struct timespec moved;                                                                                             \
    if (!next && !(next = (__typeof__(&name))next_of(#name, version)))                                                 \
        return ENOSYS;

EXPORTED int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                                    const struct timespec *restrict until) {
    NEXT(pthread_cond_timedwait, "GLIBC_2.3.2")
    return next(condition, mutex, moved_back(until, &moved));
}

EXPORTED int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                                    clockid_t clock, const struct timespec *restrict until) {
    NEXT(pthread_cond_clockwait, NULL)
    return next(condition, mutex, clock, is_moved(clock) ? moved_back(until, &moved) : until);
}

EXPORTED int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    NEXT(pthread_mutex_timedlock, NULL)
    return next(mutex, moved_back(until, &moved));
}

EXPORTED int pthread_mutex_clocklock(pthread_mutex_t *restrict mutex, clockid_t clock,
                                     const struct timespec *restrict until) {
    NEXT(pthread_mutex_clocklock, NULL)
    return next(mutex, clock, is_moved(clock) ? moved_back(until, &moved) : until);
}

EXPORTED int pthread_rwlock_timedrdlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict until) {
    NEXT(pthread_rwlock_timedrdlock, NULL)
    return next(lock, moved_back(until, &moved));
}

EXPORTED int pthread_rwlock_timedwrlock(pthread_rwlock_t *restrict lock, const struct timespec *restrict until) {
    NEXT(pthread_rwlock_timedwrlock, NULL)
    return next(lock, moved_back(until, &moved));
}

EXPORTED int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *until) {
    NEXT(pthread_timedjoin_np, NULL)
    return next(thread, result, moved_back(until, &moved));
}

/* These two report an error in errno. */

#undef NEXT
#define NEXT(name)                                                                                                     \
    static __typeof__(&name) next;                                                                                     \
    struct timespec moved;                                                                                             \
    if (!next && !(next = (__typeof__(&name))next_of(#name, NULL))) {                                                  \
        errno = ENOSYS;                                                                                                \
        return -1;                                                                                                     \
    }

EXPORTED int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    NEXT(sem_timedwait)
    return next(semaphore, moved_back(until, &moved));
}

EXPORTED int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until) {
    NEXT(sem_clockwait)
    return next(semaphore, clock, is_moved(clock) ? moved_back(until, &moved) : until);
}

/* Returns the error number. A relative sleep has no point in time. */

EXPORTED int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    static __typeof__(&clock_nanosleep) next;
    struct timespec moved;
    if (!next && !(next = (__typeof__(&clock_nanosleep))next_of("clock_nanosleep", "GLIBC_2.17")))
        return ENOSYS;
    return next(clock, flags, (flags & TIMER_ABSTIME) && is_moved(clock) ? moved_back(until, &moved) : until, left);
}
