/* Reads HTTP/1.1 responses and checks them, without keeping their bodies. */
#ifndef RESPONSE_H
#define RESPONSE_H
#include <stdbool.h>
#include <stddef.h>

#define HEAD_BYTES 16384

/* Counts a word in bytes that come in pieces. The word's first letter occurs in it only once, so a
 * mismatch can only restart the match at that very letter. */
typedef struct {
    const char *word;
    size_t matched;
    unsigned long count;
} Finder;

typedef enum { HEAD, FIXED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, COMPLETE, BROKEN } Stage;

typedef struct {
    Stage stage;
    size_t head_bytes, left, body_bytes, line_bytes;
    Finder token, done;
    const char *problem; /* why it is BROKEN */
    char head[HEAD_BYTES];
} Response;

void response_reset(Response *r, const char *token, const char *done);

/* Takes received bytes. A response ends where its framing says; bytes after it are a fault, for
 * nothing was asked yet. */
void response_feed(Response *r, const char *data, size_t bytes);
#endif
