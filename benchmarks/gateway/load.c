/*
 * Closed-loop load: N keep-alive connections, each sends its next request when its answer is
 * complete and right. One thread, one epoll, loopback only. Prints one JSON object.
 *
 *   load -p PORT -f REQUEST -c CONNECTIONS -w WARMUP_MS -d WINDOW_MS -t TOKEN -n TOKENS
 *        [-b MIN_BODY_BYTES] [-e END_WORD] [-s STAGGER_US] [-P PID]...
 *
 * REQUEST is a file with one whole HTTP request; each run of eight '@' in it becomes the request's
 * number, so that requests differ as users do. An answer counts when its status is 200, its body is
 * at least MIN_BODY_BYTES, holds TOKEN exactly TOKENS times, and END_WORD once; anything else is an
 * error and its connection is opened anew. STAGGER_US spreads the first requests in time.
 *
 * Latency runs from a request's send to its answer's last byte, time to first byte to its first body
 * byte. The CPU time is that of the processes PID between the window's two ends: all their threads,
 * those that ended too, in nanoseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "response.h"

#define MAX_CONNECTIONS 1024
#define MAX_PIDS 64
#define MAX_SLOTS 8
#define MAX_SAMPLES (8u << 20)
#define MAX_ERRORS 200
#define STALL_NS 20000000000u

typedef struct {
    int fd;
    uint64_t sent_ns;
    bool has_first;
    unsigned long counted; /* tokens of this answer that are in the total */
    Response response;
} Connection;

typedef struct {
    uint32_t *values; /* in units of 10 ns */
    size_t count;
} Samples;

static struct {
    int port, connections, stagger_us, pid_count;
    unsigned long tokens;
    uint64_t warmup_ns, window_ns;
    size_t min_body;
    const char *request_file, *token, *end_word;
    clockid_t clocks[MAX_PIDS];
} options = {.connections = 1, .tokens = 1, .token = "penumbra-bench-answer", .end_word = "[DONE]"};

static char request[65536];
static size_t request_bytes, slots[MAX_SLOTS], slot_count;
static uint64_t request_number;
static Connection connections[MAX_CONNECTIONS];
static int epoll_fd;
static Samples latency, first;
static unsigned long answers, tokens, errors;
static const char *first_error = "";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t cpu_ns(void) {
    uint64_t total = 0;
    for (int i = 0; i < options.pid_count; i++) {
        struct timespec t;
        if (clock_gettime(options.clocks[i], &t) < 0) die("a measured process is gone");
        total += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    return total;
}

static void sample(Samples *s, uint64_t ns) {
    if (s->count < MAX_SAMPLES) s->values[s->count++] = (uint32_t)(ns / 10);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(const Samples *s, double q) {
    return s->count ? s->values[(size_t)(q * (double)(s->count - 1))] / 100.0 : 0.0;
}

static void read_request(void) {
    FILE *f = fopen(options.request_file, "rb");
    if (!f) die(options.request_file);
    request_bytes = fread(request, 1, sizeof request - 1, f);
    fclose(f);
    for (char *at = request; (at = strstr(at, "@@@@@@@@")) && slot_count < MAX_SLOTS; at += 8)
        slots[slot_count++] = (size_t)(at - request);
}

static void send_request(Connection *c) {
    char number[9];
    snprintf(number, sizeof number, "%08u", (unsigned)(request_number++ % 100000000u));
    for (size_t i = 0; i < slot_count; i++) memcpy(request + slots[i], number, 8);
    response_reset(&c->response, options.token, options.end_word);
    c->has_first = false;
    c->counted = 0;
    c->sent_ns = now_ns();
    if (send(c->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) die("send");
}

static void open_connection(Connection *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0) die("connect");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll_ctl");
}

static void failed(Connection *c, const char *why) {
    if (errors++ == 0) first_error = why;
    if (errors >= MAX_ERRORS) return;
    close(c->fd);
    open_connection(c);
    send_request(c);
}

static const char *fault_of(const Response *r) {
    if (r->body_bytes < options.min_body) return "body is too short";
    if (r->token.count != options.tokens) return "wrong number of tokens";
    if (options.end_word[0] && options.tokens > 1 && r->done.count != 1) return "no end marker";
    return NULL;
}

static void on_readable(Connection *c) {
    static char in[65536];
    ssize_t n = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        failed(c, "connection closed");
        return;
    }
    Response *r = &c->response;
    response_feed(r, in, (size_t)n);
    uint64_t now = now_ns();
    if (!c->has_first && r->body_bytes > 0) {
        c->has_first = true;
        sample(&first, now - c->sent_ns);
    }
    tokens += r->token.count - c->counted;
    c->counted = r->token.count;
    if (r->stage == BROKEN) {
        failed(c, r->problem);
    } else if (r->stage == COMPLETE) {
        const char *fault = fault_of(r);
        if (fault) {
            failed(c, fault);
            return;
        }
        answers++;
        sample(&latency, now - c->sent_ns);
        send_request(c);
    }
}

static void run_until(uint64_t end) {
    struct epoll_event ready[256];
    for (uint64_t now = now_ns(); now < end && errors < MAX_ERRORS; now = now_ns()) {
        int n = epoll_wait(epoll_fd, ready, 256, (int)((end - now) / 1000000u) + 1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n && errors < MAX_ERRORS; i++) on_readable(ready[i].data.ptr);
    }
}

static void count_stalled(uint64_t now) {
    for (int i = 0; i < options.connections; i++)
        if (now - connections[i].sent_ns > STALL_NS && errors++ == 0) first_error = "no answer";
}

static void report(uint64_t wall, uint64_t cpu) {
    qsort(latency.values, latency.count, sizeof(uint32_t), by_value);
    qsort(first.values, first.count, sizeof(uint32_t), by_value);
    printf("{\"answers\":%lu,\"tokens\":%lu,\"errors\":%lu,\"error\":\"%s\",\"seconds\":%.6f,"
           "\"cpu_seconds\":%.6f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"first_p50_us\":%.2f,"
           "\"first_p99_us\":%.2f}\n",
           answers, tokens, errors, first_error, (double)wall / 1e9, (double)cpu / 1e9,
           percentile_us(&latency, 0.5), percentile_us(&latency, 0.99), percentile_us(&first, 0.5),
           percentile_us(&first, 0.99));
}

static void add_pid(const char *text) {
    if (options.pid_count == MAX_PIDS) die("too many -P");
    if (clock_getcpuclockid(atoi(text), &options.clocks[options.pid_count++]) != 0) die(text);
}

static void read_options(int argc, char **argv) {
    for (int o; (o = getopt(argc, argv, "p:f:c:w:d:t:n:b:e:s:P:")) != -1;) {
        switch (o) {
        case 'p': options.port = atoi(optarg); break;
        case 'f': options.request_file = optarg; break;
        case 'c': options.connections = atoi(optarg); break;
        case 'w': options.warmup_ns = strtoull(optarg, NULL, 10) * 1000000u; break;
        case 'd': options.window_ns = strtoull(optarg, NULL, 10) * 1000000u; break;
        case 't': options.token = optarg; break;
        case 'n': options.tokens = strtoul(optarg, NULL, 10); break;
        case 'b': options.min_body = strtoul(optarg, NULL, 10); break;
        case 'e': options.end_word = optarg; break;
        case 's': options.stagger_us = atoi(optarg); break;
        case 'P': add_pid(optarg); break;
        default: exit(2);
        }
    }
    if (!options.port || !options.request_file || !options.window_ns || options.connections < 1 ||
        options.connections > MAX_CONNECTIONS) {
        fprintf(stderr, "usage: load -p PORT -f REQUEST -d WINDOW_MS [...]: see the top of load.c\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    read_request();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    latency.values = malloc(MAX_SAMPLES * sizeof(uint32_t));
    first.values = malloc(MAX_SAMPLES * sizeof(uint32_t));
    for (int i = 0; i < options.connections; i++) open_connection(&connections[i]);
    for (int i = 0; i < options.connections; i++) {
        send_request(&connections[i]);
        if (options.stagger_us) usleep((useconds_t)options.stagger_us);
    }
    run_until(now_ns() + options.warmup_ns);
    answers = tokens = 0; /* errors of the warm-up stay: they are errors */
    latency.count = first.count = 0;
    uint64_t cpu = cpu_ns(), start = now_ns();
    run_until(start + options.window_ns);
    uint64_t end = now_ns();
    cpu = cpu_ns() - cpu;
    count_stalled(end);
    report(end - start, cpu);
    return 0;
}
