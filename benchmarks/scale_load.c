/* Many connections of which few speak: one thread, one epoll set, and every byte checked.
 *
 *     scale_load --port P --source ADDRESS --connections N [--busy B] [--in-flight D]
 *                [--size S] [--tls]
 *
 * It does what each line on stdin says, and answers with one line of JSON:
 *
 *     open          connect all, and wait until each can carry bytes
 *     busy SECONDS  D messages are in flight all the time. When one is back, the next goes out by
 *                   whichever of the B busy connections has rested longest: so the load on the
 *                   server is the same however many connections there are.
 *     end           wait until the server has closed every connection
 *
 *     cc -O2 scale_load.c -o scale_load -lssl -lcrypto      or with -DNO_TLS, without the libraries
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "latency.h"
#include "wire.h"

#define EVENTS_PER_TURN 256
#define STALL_MS 60000   /* silence after which a server is called stuck */
#define AT_ONCE 200      /* connections on their way: fewer than a backlog */
#define RING_SIZE 65536
#define TICKETS_SIZE 16384

struct conn {
    struct wire wire;
    uint32_t watched;
    uint64_t sent, received, allowed;
    uint64_t released_at;
    struct conn *next; /* of the busy ones that rest */
};

static struct {
    int port, connections, busy, in_flight;
    size_t size;
    const char *source;
    bool tls;
} opt = {.busy = 0, .in_flight = 20, .size = 1024, .source = "127.0.0.1"};

static int epoll_fd;
static SSL_CTX *tls_context;
static struct conn *conns, *first, *last;
static unsigned char ring[RING_SIZE * 2], buffer[RING_SIZE];
static struct latency latencies;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double since(uint64_t began)
{
    return (double)(now_ns() - began) / 1e9;
}

static void watch(struct conn *c, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.ptr = c};
    if (mask == c->watched)
        return;
    if (epoll_ctl(epoll_fd, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->wire.fd, &event))
        die("epoll_ctl: %s", strerror(errno));
    c->watched = mask;
}

static int turn(struct epoll_event *events)
{
    int n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, STALL_MS);
    if (n == 0)
        die("nothing happened for %d s: the server is stuck", STALL_MS / 1000);
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    return n < 0 ? 0 : n;
}

/* ---- open ---- */

static void open_all(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t began = now_ns();
    int opened = 0, up = 0;
    while (up < opt.connections) {
        for (; opened < opt.connections && opened - up < AT_ONCE; opened++) {
            struct conn *c = &conns[opened];
            wire_open(&c->wire, opt.port, false, opt.source, tls_context);
            watch(c, EPOLLIN | (c->wire.wants_write ? EPOLLOUT : 0));
        }
        for (int i = 0, n = turn(events); i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c->wire.ready && wire_establish(&c->wire))
                up++;
            else if (c->wire.ready && !(events[i].events & EPOLLOUT))
                if (wire_recv(&c->wire, buffer, TICKETS_SIZE) != WIRE_AGAIN)
                    die("the server speaks first, or closes a connection");
            watch(c, EPOLLIN | (c->wire.ready || !c->wire.wants_write ? 0 : EPOLLOUT));
        }
    }
    printf("{\"opened\": %d, \"seconds\": %.6f}\n", up, since(began));
}

/* ---- busy ---- */

static void rest(struct conn *c)
{
    c->next = NULL;
    if (first)
        last->next = c;
    else
        first = c;
    last = c;
}

static void send_allowed(struct conn *c)
{
    while (c->sent < c->allowed) {
        ssize_t n = wire_send(&c->wire, ring + c->sent % RING_SIZE, c->allowed - c->sent);
        if (n <= 0)
            die("a message does not fit into the system's buffer, or the server has closed");
        c->sent += (uint64_t)n;
    }
}

static void release(void)
{
    struct conn *c = first;
    first = c->next;
    c->allowed += opt.size;
    c->released_at = now_ns();
    send_allowed(c);
}

/* Returns whether the message on its way is back. */
static bool receive(struct conn *c)
{
    ssize_t n;
    do {
        n = wire_recv(&c->wire, buffer, sizeof buffer);
        if (n == WIRE_EOF)
            die("the server closed a connection in use");
        if ((uint64_t)n > c->sent - c->received)
            die("the server sent back more than it was sent");
        if (memcmp(buffer, ring + c->received % RING_SIZE, (size_t)n) != 0)
            die("the server sent back other bytes after %llu", (unsigned long long)c->received);
        c->received += (uint64_t)n;
    } while (n > 0 && c->wire.ssl); /* TLS keeps bytes that epoll cannot see */
    return c->received == c->allowed;
}

static void busy(double seconds)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t began = now_ns(), ends = began + (uint64_t)(seconds * 1e9), messages = 0;
    int in_flight = 0;
    if (opt.busy < 1)
        die("none of these connections is busy");
    latency_reset(&latencies);
    /* Spread over the connections, the oldest and the youngest among them. */
    first = last = NULL;
    for (int i = 0; i < opt.busy; i++)
        rest(&conns[(uint64_t)i * (uint64_t)opt.connections / (uint64_t)opt.busy]);
    while (in_flight < opt.in_flight && first) {
        release();
        in_flight++;
    }
    while (in_flight)
        for (int i = 0, n = turn(events); i < n; i++) {
            struct conn *c = events[i].data.ptr;
            uint64_t before = c->received;
            if (!receive(c) || c->received == before)
                continue;
            latency_record(&latencies, now_ns() - c->released_at);
            messages++;
            rest(c);
            if (now_ns() < ends)
                release();
            else
                in_flight--;
        }
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           (unsigned long long)messages, since(began), latency_quantile_us(&latencies, 0.50),
           latency_quantile_us(&latencies, 0.99));
}

/* ---- end ---- */

static void end_all(void)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t began = now_ns();
    for (int i = 0; i < opt.connections; i++)
        conns[i].wire.closing = true;
    for (int left = opt.connections; left;)
        for (int i = 0, n = turn(events); i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (wire_recv(&c->wire, buffer, sizeof buffer) == WIRE_EOF) {
                wire_close(&c->wire);
                left--;
            }
        }
    printf("{\"closed\": %d, \"seconds\": %.6f}\n", opt.connections, since(began));
}

/* ---- the conversation ---- */

static void parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, 0, 'p'}, {"source", required_argument, 0, 'a'},
        {"connections", required_argument, 0, 'c'}, {"busy", required_argument, 0, 'b'},
        {"in-flight", required_argument, 0, 'd'}, {"size", required_argument, 0, 's'},
        {"tls", no_argument, 0, 'S'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'a': opt.source = optarg; break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'b': opt.busy = atoi(optarg); break;
        case 'd': opt.in_flight = atoi(optarg); break;
        case 's': opt.size = (size_t)atol(optarg); break;
        case 'S': opt.tls = true; break;
        default: exit(2);
        }
    if (opt.port < 1 || opt.connections < 1 || opt.busy > opt.connections || opt.in_flight < 1
        || opt.size < 1 || opt.size > RING_SIZE)
        die("want --port, --connections, no more busy ones, and a size of up to %d", RING_SIZE);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    char line[64];
    uint64_t x = 0x9E3779B97F4A7C15u;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    parse(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc((size_t)opt.connections, sizeof *conns);
    tls_context = opt.tls ? wire_tls_context() : NULL;
    for (int i = 0; i < RING_SIZE; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        ring[i] = ring[i + RING_SIZE] = (unsigned char)x;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin))
        if (strcmp(line, "open\n") == 0)
            open_all();
        else if (strncmp(line, "busy ", 5) == 0)
            busy(atof(line + 5));
        else if (strcmp(line, "end\n") == 0)
            end_all();
        else
            die("no such command: %s", line);
    return 0;
}
