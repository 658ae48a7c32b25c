#define _GNU_SOURCE
#include "response.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void finder_feed(Finder *f, const char *data, size_t bytes) {
    const char *end = data + bytes;
    while (data < end) {
        if (f->matched == 0) {
            data = memchr(data, f->word[0], (size_t)(end - data));
            if (!data) return;
        }
        if (*data == f->word[f->matched])
            f->matched++;
        else
            f->matched = *data == f->word[0];
        data++;
        if (f->word[f->matched] == '\0') {
            f->count++;
            f->matched = 0;
        }
    }
}

static void broken(Response *r, const char *why) {
    r->stage = BROKEN;
    r->problem = why;
}

void response_reset(Response *r, const char *token, const char *done) {
    r->stage = HEAD;
    r->head_bytes = r->left = r->body_bytes = r->line_bytes = 0;
    r->token = (Finder){.word = token};
    r->done = (Finder){.word = done};
    r->problem = NULL;
}

static void head_complete(Response *r) {
    bool chunked = false, fixed = false;
    r->head[r->head_bytes] = '\0';
    if (strncmp(r->head, "HTTP/1.1 200", 12) != 0) {
        broken(r, "status is not 200");
        return;
    }
    for (char *line = strstr(r->head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            fixed = true;
            r->left = strtoul(line + 15, NULL, 10);
        }
        if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) chunked = true;
    }
    if (chunked == fixed)
        broken(r, "neither content-length nor chunked, or both");
    else
        r->stage = chunked ? CHUNK_SIZE : r->left ? FIXED : COMPLETE;
}

/* Takes bytes of the head up to its blank line; returns how many. */
static size_t feed_head(Response *r, const char *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        if (r->head_bytes == HEAD_BYTES - 1) return broken(r, "head too long"), bytes;
        r->head[r->head_bytes++] = data[i];
        if (data[i] == '\n' && r->head_bytes >= 4 &&
            memcmp(r->head + r->head_bytes - 4, "\r\n\r\n", 4) == 0) {
            head_complete(r);
            return i + 1;
        }
    }
    return bytes;
}

static size_t feed_body(Response *r, const char *data, size_t bytes) {
    size_t n = bytes < r->left ? bytes : r->left;
    finder_feed(&r->token, data, n);
    finder_feed(&r->done, data, n);
    r->body_bytes += n;
    r->left -= n;
    if (r->left == 0) r->stage = r->stage == FIXED ? COMPLETE : CHUNK_END;
    return n;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes one byte of the framing between chunks. */
static void feed_framing(Response *r, char byte) {
    if (byte == '\n') {
        if (r->stage == CHUNK_END)
            r->stage = CHUNK_SIZE;
        else if (r->stage == CHUNK_SIZE)
            r->stage = r->left ? CHUNK_DATA : TRAILER;
        else if (r->line_bytes == 0)
            r->stage = COMPLETE;
        r->line_bytes = 0;
        return;
    }
    if (byte == '\r') return;
    r->line_bytes++;
    if (r->stage == TRAILER) return;
    if (r->stage == CHUNK_END || hex(byte) < 0)
        broken(r, "chunk framing");
    else
        r->left = r->left * 16 + (size_t)hex(byte);
}

void response_feed(Response *r, const char *data, size_t bytes) {
    while (bytes > 0 && r->stage != BROKEN) {
        size_t used = 1;
        switch (r->stage) {
        case HEAD:
            used = feed_head(r, data, bytes);
            break;
        case FIXED:
        case CHUNK_DATA:
            used = feed_body(r, data, bytes);
            break;
        case COMPLETE:
            broken(r, "bytes after the response");
            break;
        default:
            feed_framing(r, *data);
        }
        data += used;
        bytes -= used;
    }
}
