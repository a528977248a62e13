/* What a test of a hypervisor driver asks of a lab guest, whatever its agent does.
 *
 *   keeper PORT FOLDER...      serves requests that come over a virtio port
 *   hook freeze|thaw           the agent's freeze hook: asks over a port of its own
 *
 * A request is 16 bytes, little-endian: number (32 bits), what (8), disk (8), 16 bits of nothing,
 * block (32), 32 bits of nothing; 'W' is followed by a block of 4 KiB. The answer is the number and
 * a status (32 bits each: 0, or an errno), and for 'R' a block. Each request has a thread of its
 * own, so that a write that waits for a thaw keeps nobody else waiting.
 *
 *   W, R   write or read a block of blocks.bin in a folder, past the page cache and to the disk
 *   A      end the agent that the guest was started with, and start one with the freeze hook
 *   Z      end every agent
 *   S, C   stop that agent as a hang would, or let it go on
 *
 * The hook says "freeze" or "thaw" in a line and waits for one byte: 'y' lets the agent go on, and
 * anything else makes the freeze fail. Who answers so knows that the file systems stand at no other
 * time than between the two. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 4096
#define BLOCKS 1024
#define MOST_FOLDERS 16
#define AGENT_PORT "/dev/virtio-ports/org.qemu.guest_agent.0"
#define HOOK_PORT "/dev/virtio-ports/stillframe.hook"
#define HOOK_MS 20000

typedef struct {
    uint32_t number;
    uint8_t what, disk;
    uint16_t none;
    uint32_t block, nothing;
} request;

typedef struct {
    request asked;
    char *data;
} work;

static int port, files[MOST_FOLDERS], folders;
static pid_t agent;
static pthread_mutex_t answering = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    fprintf(stderr, "keeper: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_all(int from, void *into, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t got = read(from, (char *)into + done, size - done);
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            die("port");
        if (got <= 0) /* nobody is connected at the other end */
            usleep(5000);
        else
            done += (size_t)got;
    }
}

static void write_all(int to, const void *from, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t put = write(to, (const char *)from + done, size - done);
        if (put < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (put > 0)
            done += (size_t)put;
    }
}

static void *block_memory(void) {
    void *memory = aligned_alloc(BLOCK, BLOCK);
    if (!memory)
        die("memory");
    return memory;
}

static void end_first_agent(void) {
    int code = system("killall -KILL qemu-ga 2>/dev/null");
    (void)code; /* it may have been ended before */
}

static void start_agent(void) {
    end_first_agent();
    /* The port is free when the killed agent is gone; another would not find it so, and give up. */
    int at;
    while ((at = open(AGENT_PORT, O_RDWR)) < 0 && errno == EBUSY)
        usleep(5000);
    if (at >= 0)
        close(at);
    agent = fork();
    if (agent)
        return;
    close(port);
    execl("/bin/agent", "agent", "-m", "virtio-serial", "-p", AGENT_PORT, "-t", "/run", "-l",
          "/tmp/agent.log", "--fsfreeze-hook=/bin/hook", NULL);
    _exit(127);
}

static int failed(int result) { return result < 0 ? errno : 0; }

static uint32_t carry_out(work *w) {
    request *r = &w->asked;
    off_t at = (off_t)r->block * BLOCK;
    if ((r->what == 'W' || r->what == 'R') && (r->disk >= folders || r->block >= BLOCKS))
        return EINVAL;
    ssize_t moved;
    switch (r->what) {
    case 'W':
        moved = pwrite(files[r->disk], w->data, BLOCK, at);
        return moved == BLOCK ? 0 : moved < 0 ? (uint32_t)errno : EIO;
    case 'R':
        moved = pread(files[r->disk], w->data, BLOCK, at);
        return moved == BLOCK ? 0 : moved < 0 ? (uint32_t)errno : EIO;
    case 'A':
        start_agent();
        return 0;
    case 'Z':
        end_first_agent();
        return agent ? (uint32_t)failed(kill(agent, SIGKILL)) : 0;
    case 'S':
        return (uint32_t)failed(kill(agent, SIGSTOP));
    case 'C':
        return (uint32_t)failed(kill(agent, SIGCONT));
    }
    return EINVAL;
}

static void *serve(void *given) {
    work *w = given;
    uint32_t answer[2] = {w->asked.number, carry_out(w)};
    pthread_mutex_lock(&answering);
    write_all(port, answer, sizeof answer);
    if (w->asked.what == 'R')
        write_all(port, w->data, BLOCK);
    pthread_mutex_unlock(&answering);
    free(w->data);
    free(w);
    return NULL;
}

static void open_blocks(const char *folder) {
    char path[256];
    snprintf(path, sizeof path, "%s/blocks.bin", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_DSYNC, 0644);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts))
        die(path);
    /* Written once in full, so that a block keeps its place on the disk from then on. */
    if (facts.st_size < (off_t)BLOCK * BLOCKS) {
        size_t size = (size_t)BLOCK * BLOCKS;
        void *zeros = aligned_alloc(BLOCK, size);
        if (!zeros)
            die("memory");
        memset(zeros, 0, size);
        if (pwrite(fd, zeros, size, 0) != (ssize_t)size)
            die(path);
        free(zeros);
    }
    files[folders++] = fd;
}

static void keep(const char *port_path) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    port = open(port_path, O_RDWR);
    if (port < 0)
        die(port_path);
    write_all(port, "hello\n", 6);
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 128 << 10);
    for (;;) {
        work *w = malloc(sizeof *w);
        if (!w)
            die("memory");
        w->data = block_memory();
        read_all(port, &w->asked, sizeof w->asked);
        if (w->asked.what == 'W')
            read_all(port, w->data, BLOCK);
        pthread_t thread;
        if (pthread_create(&thread, &detached, serve, w))
            die("thread");
    }
}

static int hook(const char *what) {
    int at = open(HOOK_PORT, O_RDWR);
    if (at < 0)
        return 0;
    dprintf(at, "%s\n", what);
    struct pollfd waiting = {at, POLLIN, 0};
    char said = 'y';
    /* Who should answer may be gone; a guest must not stay as it is for that. */
    if (poll(&waiting, 1, HOOK_MS) > 0 && read(at, &said, 1) != 1)
        said = 'y';
    return said == 'y' ? 0 : 1;
}

int main(int count, char **words) {
    if (count == 2 && strstr(words[0], "hook"))
        return hook(words[1]);
    if (count < 3 || count - 2 > MOST_FOLDERS)
        return 2;
    for (int i = 2; i < count; i++)
        open_blocks(words[i]);
    keep(words[1]);
    return 1;
}
