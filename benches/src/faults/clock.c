/* A wall clock that jumps, for one process and without touching the system's: preloaded by the fault bench.
 *
 * The file that FAULTS_CLOCK names holds the offset in seconds, as eight bytes of this machine; whoever changes it
 * changes the time that the process sees at once. Waits until a moment of the wall clock are given to the real one, so
 * that only what the clock says jumps and nobody sleeps for an hour. Clocks that cannot jump are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULTS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) offset = mapped;
  close(file);
}

static int64_t jumped(void) { return offset ? *offset : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jumped();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *also) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (also) *also = precise.tv_sec;
  return precise.tv_sec;
}

/* Moments of clocks that count from the start of the machine are smaller. */
static struct timespec real_moment(const struct timespec *until) {
  struct timespec moved = *until;
  if (moved.tv_sec > 1000000000) moved.tv_sec -= jumped();
  return moved;
}

typedef int (*timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  static timedwait real;
  if (!real) real = (timedwait)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = (timedwait)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec moved = real_moment(until);
  return real(condition, mutex, &moved);
}

/* What librdkafka waits by. Within libc it does not come by the function above. */
typedef int (*until_wait)(cnd_t *, mtx_t *, const struct timespec *);

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  static until_wait real;
  if (!real) real = (until_wait)dlsym(RTLD_NEXT, "cnd_timedwait");
  struct timespec moved = real_moment(until);
  return real(condition, mutex, &moved);
}
