/* Writes stamped records into the pattern file of one or more folders, or checks what is there.
 *
 *   writer write RECORD_BYTES RATE_PER_S FILE_BYTES ACK_PORT FOLDER...
 *   writer check RECORD_BYTES FILE_BYTES FOLDER...
 *
 * write: record n goes to every folder in turn, each with O_DSYNC, and is then acknowledged with the
 * line "n milliseconds" on ACK_PORT. The times at which records are due do not depend on how long
 * earlier ones took. It goes on behind the last record that all folders have, and ends after a whole
 * record on SIGTERM. check: prints one JSON object per folder, in a list.
 *
 * The layout of a record is described in lab/pattern.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x52454331ull
#define SALT 0xABCDEFull
#define FACTOR 0x9E3779B97F4A7C15ull
#define HEADER_WORDS 4
#define MOST_FOLDERS 16
/* A writer that falls further behind than this gives up catching up: the backlog of an outage would
 * otherwise be written at full speed long after it. */
#define MOST_BACKLOG_S 1.0

typedef struct {
    uint64_t records, bad, missing;
    int64_t max_seq;
} report;

static volatile sig_atomic_t stopping;

static void stop(int signal_number) {
    (void)signal_number;
    stopping = 1;
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    fprintf(stderr, "writer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void fill(uint64_t *words, size_t count, uint64_t seq) {
    double now = seconds(CLOCK_REALTIME);
    words[0] = MAGIC;
    words[1] = seq;
    memcpy(&words[2], &now, sizeof now);
    words[3] = seq ^ SALT;
    for (size_t i = HEADER_WORDS; i < count; i++)
        words[i] = seq * FACTOR + i;
}

static int is_empty(const uint64_t *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (words[i])
            return 0;
    return 1;
}

static int is_whole(const uint64_t *words, size_t count, uint64_t slot, uint64_t slots) {
    uint64_t seq = words[1];
    if (words[0] != MAGIC || words[3] != (seq ^ SALT) || seq % slots != slot)
        return 0;
    for (size_t i = HEADER_WORDS; i < count; i++)
        if (words[i] != seq * FACTOR + i)
            return 0;
    return 1;
}

static void path_in(char *path, size_t size, const char *folder) {
    if ((size_t)snprintf(path, size, "%s/pattern.bin", folder) >= size) {
        errno = ENAMETOOLONG;
        die(folder);
    }
}

/* Reads one pattern file whole. A missing file has no record; that is for the reader to judge. */
static report inspect(const char *folder, size_t record, uint64_t slots) {
    report found = {0, 0, 0, -1};
    char path[4096];
    path_in(path, sizeof path, folder);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        if (errno == ENOENT)
            return found;
        die(path);
    }
    struct stat facts;
    if (fstat(fd, &facts))
        die(path);
    uint64_t present = ((uint64_t)facts.st_size + record - 1) / record;
    uint64_t *words = aligned_alloc(4096, record);
    int64_t *seqs = malloc((present ? present : 1) * sizeof *seqs);
    if (!words || !seqs)
        die("memory");
    for (uint64_t slot = 0; slot < present; slot++) {
        ssize_t got = pread(fd, words, record, (off_t)(slot * record));
        if (got < 0)
            die(path);
        seqs[slot] = -1;
        if ((size_t)got == record && is_whole(words, record / 8, slot, slots)) {
            seqs[slot] = (int64_t)words[1];
            found.records++;
            if (seqs[slot] > found.max_seq)
                found.max_seq = seqs[slot];
        } else if ((size_t)got != record || !is_empty(words, record / 8)) {
            found.bad++;
        }
    }
    int64_t first = found.max_seq - (int64_t)slots + 1;
    for (int64_t seq = first < 0 ? 0 : first; seq <= found.max_seq; seq++) {
        uint64_t slot = (uint64_t)seq % slots;
        if (slot >= present || seqs[slot] != seq)
            found.missing++;
    }
    free(seqs);
    free(words);
    close(fd);
    return found;
}

static int check(size_t record, uint64_t slots, int folders, char **folder) {
    printf("[");
    for (int i = 0; i < folders; i++) {
        report r = inspect(folder[i], record, slots);
        printf("%s{\"records\": %llu, \"bad\": %llu, \"missing\": %llu, \"max_seq\": %lld}",
               i ? ", " : "", (unsigned long long)r.records, (unsigned long long)r.bad,
               (unsigned long long)r.missing, (long long)r.max_seq);
    }
    printf("]\n");
    return 0;
}

static void wait_until(double due) {
    struct timespec t = {(time_t)due, (long)((due - (double)(time_t)due) * 1e9)};
    while (!stopping && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void acknowledge(int port, uint64_t seq, double took_s) {
    char line[64];
    int length = snprintf(line, sizeof line, "%llu %.3f\n", (unsigned long long)seq, took_s * 1e3);
    /* Nobody may listen, or not fast enough: then the record is just not acknowledged. */
    if (write(port, line, (size_t)length) != length)
        return;
}

static int write_records(size_t record, double rate, uint64_t slots, const char *port_path,
                         int folders, char **folder) {
    int fd[MOST_FOLDERS];
    int64_t last = INT64_MAX;
    for (int i = 0; i < folders; i++) {
        char path[4096];
        path_in(path, sizeof path, folder[i]);
        report r = inspect(folder[i], record, slots);
        if (r.max_seq < last)
            last = r.max_seq;
        fd[i] = open(path, O_WRONLY | O_CREAT | O_DSYNC, 0644);
        if (fd[i] < 0)
            die(path);
    }
    int port = open(port_path, O_WRONLY | O_NONBLOCK);
    if (port < 0)
        die(port_path);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    uint64_t *words = aligned_alloc(4096, record);
    if (!words)
        die("memory");
    double due = seconds(CLOCK_MONOTONIC);
    for (uint64_t seq = (uint64_t)(last + 1); !stopping; seq++) {
        fill(words, record / 8, seq);
        double begun = seconds(CLOCK_MONOTONIC);
        for (int i = 0; i < folders; i++)
            if (pwrite(fd[i], words, record, (off_t)((seq % slots) * record)) != (ssize_t)record)
                die(folder[i]);
        double now = seconds(CLOCK_MONOTONIC);
        acknowledge(port, seq, now - begun);
        due += 1 / rate;
        if (due < now - MOST_BACKLOG_S)
            due = now - MOST_BACKLOG_S;
        wait_until(due);
    }
    return 0;
}

static uint64_t number(const char *text) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || *end || !value) {
        errno = EINVAL;
        die(text);
    }
    return value;
}

int main(int count, char **words) {
    if (count >= 5 && count - 4 <= MOST_FOLDERS && !strcmp(words[1], "check")) {
        uint64_t record = number(words[2]);
        return check(record, number(words[3]) / record, count - 4, words + 4);
    }
    if (count >= 7 && count - 6 <= MOST_FOLDERS && !strcmp(words[1], "write")) {
        uint64_t record = number(words[2]);
        return write_records(record, atof(words[3]), number(words[4]) / record, words[5],
                             count - 6, words + 6);
    }
    fprintf(stderr, "writer: write RECORD RATE FILE_BYTES PORT FOLDER... or check RECORD "
                    "FILE_BYTES FOLDER...\n");
    return 2;
}
