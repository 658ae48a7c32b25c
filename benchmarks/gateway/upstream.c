/*
 * A fake vLLM server for benchmarks: as little work as an HTTP server can do, always the same answer.
 *
 *   upstream EVENTS PORT [PORT ...]
 *
 * One thread, one epoll, keep-alive, HTTP/1.1, loopback only. Any path prefix is accepted.
 *   POST .../chat/completions   JSON of about 0.3 KB, or, with "stream":true in the body, EVENTS
 *                               tokens and [DONE]. "seed":N in the body paces them at N a second;
 *                               0 or no seed sends them as fast as the reader takes them.
 *   GET  .../v1/models          one model, "bench"
 *   GET  .../stats              how many POSTs each port was sent, in their order
 *   GET  anything else          {"status":"ok"}: health and discovery probes
 *
 * Fields are found by text search, not by parsing JSON: the load generator is ours, and "seed" is a
 * standard field that every gateway passes on. Request bodies need a Content-Length.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES 65536
#define MAX_FDS 8192
#define MAX_PORTS 8

typedef struct {
    int fd, port_index;
    size_t in_length, out_length;
    const char *out;         /* what is left to write, or NULL */
    int event;               /* next event of the stream, or -1 when not streaming */
    uint64_t gap_ns, due_ns; /* pacing; 0 = as fast as the reader takes them */
    bool waits_writable;
    char in[IN_BYTES];
} Connection;

static const char UNARY_BODY[] =
    "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"penumbra-bench-answer\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":24,\"total_tokens\":32,\"completion_tokens\":8}}";
static const char MODELS_BODY[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,"
    "\"owned_by\":\"vllm\",\"max_model_len\":4096}]}";
static const char OK_BODY[] = "{\"status\":\"ok\",\"model_path\":\"bench\",\"model_id\":\"bench\"}";

static Connection *connections[MAX_FDS], *streams[MAX_FDS];
static int listeners[MAX_PORTS], port_count, stream_count, epoll_fd;
static unsigned long served[MAX_PORTS];
/* Head and role event; two kinds of token, in turn, for a gateway may take a stream that repeats one
 * for a model that loops; last token and [DONE]. */
static char *events[4];
static char unary[1024], models[1024], ok[1024], stats[1024];
static int event_total;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void with_head(char *to, const char *body) {
    const char *head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
    sprintf(to, "%s %zu\r\n\r\n%s", head, strlen(body), body);
}

static char *as_chunk(char *to, const char *data) {
    return to + sprintf(to, "%zx\r\n%s\r\n", strlen(data), data);
}

/* One event as a chunk; returns its end. */
static char *token_event(char *to, const char *delta, const char *finish) {
    char event[512];
    sprintf(event,
            "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\","
            "\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s},"
            "\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
            delta, finish);
    return as_chunk(to, event);
}

static void build_answers(void) {
    for (int i = 0; i < 4; i++) events[i] = calloc(1, 2048);
    char *end = events[0] + sprintf(events[0], "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; "
                                               "charset=utf-8\r\ncache-control: no-cache\r\n"
                                               "transfer-encoding: chunked\r\n\r\n");
    token_event(end, "\"role\":\"assistant\",\"content\":\"\"", "null");
    token_event(events[1], "\"content\":\"lorem7 \"", "null");
    token_event(events[2], "\"content\":\"lorem7, \"", "null");
    end = token_event(events[3], "\"content\":\"lorem7.\"", "\"stop\"");
    end = as_chunk(end, "data: [DONE]\n\n");
    strcpy(end, "0\r\n\r\n");
    with_head(unary, UNARY_BODY);
    with_head(models, MODELS_BODY);
    with_head(ok, OK_BODY);
}

static const char *find(const char *in, size_t bytes, const char *what) {
    return memmem(in, bytes, what, strlen(what));
}

static void stream_remove(Connection *c) {
    for (int i = 0; i < stream_count; i++)
        if (streams[i] == c) streams[i] = streams[--stream_count];
    c->event = -1;
}

static void drop(Connection *c) {
    if (c->event >= 0) stream_remove(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c);
}

static void watch(Connection *c, bool writable) {
    if (c->waits_writable == writable) return;
    struct epoll_event e = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->waits_writable = writable;
}

/* Writes what is left; false once the connection is gone. */
static bool flush_out(Connection *c) {
    ssize_t n = send(c->fd, c->out, c->out_length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return drop(c), false;
    c->out += n > 0 ? n : 0;
    c->out_length -= n > 0 ? (size_t)n : 0;
    if (c->out_length == 0) c->out = NULL;
    watch(c, c->out != NULL);
    return true;
}

static bool put(Connection *c, const char *data) {
    c->out = data;
    c->out_length = strlen(data);
    return flush_out(c);
}

/* Sends the stream's next event; false once the connection is gone. */
static bool stream_step(Connection *c) {
    int kind = c->event == 0 ? 0 : c->event < event_total ? 1 + c->event % 2 : 3;
    if (kind == 3)
        stream_remove(c);
    else
        c->event++;
    c->due_ns += c->gap_ns;
    return put(c, events[kind]);
}

static bool answer_get(Connection *c, size_t head) {
    size_t line = (size_t)((char *)memchr(c->in, '\r', head) - c->in);
    if (find(c->in, line, "/v1/models ")) return put(c, models);
    if (!find(c->in, line, "/stats ")) return put(c, ok);
    char body[256] = "[";
    for (int i = 0, used = 1; i < port_count; i++)
        used += sprintf(body + used, "%s%lu", i ? "," : "", served[i]);
    strcat(body, "]");
    with_head(stats, body);
    return put(c, stats);
}

static bool answer_post(Connection *c, const char *body, size_t bytes) {
    served[c->port_index]++;
    if (!find(body, bytes, "\"stream\":true") && !find(body, bytes, "\"stream\": true"))
        return put(c, unary);
    const char *seed = find(body, bytes, "\"seed\":");
    uint64_t rate = seed ? strtoull(seed + 7, NULL, 10) : 0;
    c->event = 0;
    c->gap_ns = rate ? 1000000000u / rate : 0;
    c->due_ns = now_ns();
    streams[stream_count++] = c;
    return stream_step(c);
}

/* Answers the request at the front of the buffer, if it is complete; false when it is not, or when
 * the connection is gone. */
static bool serve_one(Connection *c) {
    const char *end = find(c->in, c->in_length, "\r\n\r\n");
    if (!end) return false;
    size_t head = (size_t)(end - c->in) + 4, body = 0;
    for (const char *line = c->in; line < end; line = (const char *)memchr(line, '\n', head) + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
        if (strncasecmp(line, "transfer-encoding:", 18) == 0) return drop(c), false;
    }
    if (c->in_length < head + body) return false;
    int fd = c->fd;
    bool alive = c->in[0] == 'P' ? answer_post(c, c->in + head, body) : answer_get(c, head);
    if (!alive || connections[fd] != c) return false;
    c->in_length -= head + body;
    memmove(c->in, c->in + head + body, c->in_length);
    return true;
}

static void serve_ready(Connection *c) {
    int fd = c->fd;
    while (connections[fd] == c && !c->out && c->event < 0 && serve_one(c)) {
    }
}

static void on_readable(Connection *c) {
    ssize_t n = recv(c->fd, c->in + c->in_length, IN_BYTES - c->in_length, 0);
    if (n > 0) c->in_length += (size_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN))
        drop(c);
    else
        serve_ready(c);
}

static void watch_new(int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll_ctl");
}

static void on_listener(int index) {
    int fd;
    while ((fd = accept4(listeners[index], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS) die("too many connections");
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->port_index = index;
        c->event = -1;
        connections[fd] = c;
        watch_new(fd);
    }
}

/* One event for every stream that is due; returns until when epoll may wait: to the nanosecond, so
 * that each token goes by itself, which is the dearest way for a gateway. */
static uint64_t step_streams(void) {
    uint64_t now = now_ns(), soonest = UINT64_MAX;
    for (int i = stream_count - 1; i >= 0; i--) {
        if (i >= stream_count) continue; /* the last one took a dropped one's place */
        Connection *c = streams[i];
        int fd = c->fd;
        if (c->out) continue; /* EPOLLOUT wakes it */
        if (c->due_ns <= now || c->gap_ns == 0) {
            if (!stream_step(c)) continue;
            if (c->event < 0) serve_ready(c);
            if (c->event < 0 || connections[fd] != c) continue;
        }
        if (!c->out && c->due_ns < soonest) soonest = c->gap_ns ? c->due_ns : now;
    }
    return soonest;
}

static void listen_on(int index, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1024) < 0) die("listen");
    watch_new(fd);
    listeners[index] = fd;
}

static void on_event(const struct epoll_event *e) {
    for (int p = 0; p < port_count; p++)
        if (e->data.fd == listeners[p]) on_listener(p);
    Connection *c = connections[e->data.fd];
    if (c && (e->events & EPOLLOUT) && c->out) {
        if (!flush_out(c)) return;
        serve_ready(c);
        c = connections[e->data.fd];
    }
    if (c && (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_readable(c);
}

int main(int argc, char **argv) {
    if (argc < 3 || argc - 2 > MAX_PORTS || (event_total = atoi(argv[1])) < 1) {
        fprintf(stderr, "usage: upstream EVENTS PORT [PORT ...] (at most %d ports)\n", MAX_PORTS);
        return 2;
    }
    build_answers();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    port_count = argc - 2;
    for (int i = 0; i < port_count; i++) listen_on(i, atoi(argv[i + 2]));
    struct epoll_event ready[256];
    for (;;) {
        uint64_t until = step_streams(), now = now_ns(), wait = until > now ? until - now : 0;
        struct timespec t = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        int n = epoll_pwait2(epoll_fd, ready, 256, until == UINT64_MAX ? NULL : &t, NULL);
        if (n < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < n; i++) on_event(&ready[i]);
    }
}
