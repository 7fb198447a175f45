/* What runs services does all day, linked with Debian's musl as a library: threads, processes, pipes, sockets,
   polling, signals, timers, files, memory. Leaves word in a file. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

static volatile sig_atomic_t seen;
static void on_signal(int number) { seen = number; }

static void *add(void *sum) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        ++*(long *)sum;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *serve(void *listener) {
    int peer = accept4(*(int *)listener, NULL, NULL, SOCK_CLOEXEC);
    MUST(peer >= 0 && send(peer, "hello", 5, MSG_NOSIGNAL) == 5);
    close(peer);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 2) return 7;
    MUST(argc == 2);

    long sum = 0;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) MUST(pthread_create(&threads[i], NULL, add, &sum) == 0);
    for (int i = 0; i < 8; i++) MUST(pthread_join(threads[i], NULL) == 0);
    MUST(sum == 8000);

    int status;
    pid_t child = fork();
    if (child == 0) _exit(3);
    MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    char *again[] = {argv[0], "a", "b", NULL}, *none[] = {NULL};
    MUST(posix_spawn(&child, "/program", NULL, NULL, again, none) == 0);
    MUST(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);

    int pipes[2], pair[2];
    char text[16] = "";
    MUST(pipe2(pipes, O_CLOEXEC) == 0 && write(pipes[1], "x", 1) == 1);
    struct pollfd waits = {.fd = pipes[0], .events = POLLIN};
    MUST(poll(&waits, 1, 1000) == 1 && read(pipes[0], text, 1) == 1);
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && send(pair[0], "y", 1, 0) == 1);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, pair[1], &event) == 0 && epoll_wait(epoll, &event, 1, 1000) == 1);
    MUST(eventfd(0, EFD_CLOEXEC) >= 0);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    MUST(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
    MUST(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    MUST(pthread_create(&threads[0], NULL, serve, &listener) == 0);
    MUST(connect(client, (struct sockaddr *)&address, size) == 0);
    MUST(recv(client, text, 5, MSG_WAITALL) == 5 && memcmp(text, "hello", 5) == 0);
    MUST(pthread_join(threads[0], NULL) == 0);

    struct sigaction action = {.sa_handler = on_signal};
    MUST(sigaction(SIGALRM, &action, NULL) == 0 && alarm(1) == 0);
    while (!seen) pause();
    struct itimerspec soon = {.it_value.tv_nsec = 1000000};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    unsigned long long times;
    MUST(timerfd_settime(timer, 0, &soon, NULL) == 0 && read(timer, &times, sizeof times) == sizeof times);

    MUST(getrandom(text, sizeof text, 0) == sizeof text);
    char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(block != MAP_FAILED && madvise(block, 1 << 20, MADV_DONTNEED) == 0 && mprotect(block, 4096, PROT_READ) == 0);
    MUST(memfd_create("m", MFD_CLOEXEC) >= 0);
    struct stat stat_of;
    MUST(mkdir("/tmp/d", 0700) == 0 && rename("/tmp/d", "/tmp/e") == 0 && stat("/tmp/e", &stat_of) == 0);
    MUST(S_ISDIR(stat_of.st_mode) && rmdir("/tmp/e") == 0);

    FILE *word = fopen(argv[1], "w");
    MUST(word != NULL && fputs("well\n", word) >= 0 && fclose(word) == 0);
    return 0;
}
