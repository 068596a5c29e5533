/* Makes system calls of headrace's own extension modules fail, by a plan. It leaves those of Python
   and of the loop alone.

   It is preloaded (LD_PRELOAD) into a Python process. It touches a call only if its return address
   lies in an extension module of headrace/_transport. For calls on sockets, the socket must also be
   a stream socket of the rule's family. The plan is a list of rules, in HEADRACE_FAULTS or by
   fault_plan():

       recv=EINTR@3                 every third call fails with EINTR
       recv=ENOMEM@3+10             the same from the tenth call on
       accept4=EMFILE@1x2           every call, twice at most
       recv/unix=SHORT:5@2          every second one on a Unix socket asks for 5 bytes at most;
                                    the default is /inet, both versions
       epoll_ctl_add=ENOSPC@2x1     one operation of epoll_ctl() only

   If there are two rules for one function, the first that applies counts. Some rules claim what the
   system never does, such as SHORT for recv on TCP, or EAGAIN for a socket that has something. They
   prove nothing: an edge-triggered set does not report a second time. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define OURS "/headrace/_transport/"
#define MOST_RULES 16
#define MOST_VECTORS 64

enum function {
    RECV, SEND, SENDMSG, ACCEPT4, EPOLL_WAIT, EPOLL_CREATE1, CTL_ADD, CTL_MOD, FUNCTIONS
};
static const char *const names[FUNCTIONS] = {
    "recv", "send", "sendmsg", "accept4",
    "epoll_wait", "epoll_create1", "epoll_ctl_add", "epoll_ctl_mod",
};

static const struct { const char *name; int number; } errors[] = {
    {"EAGAIN", EAGAIN}, {"ECONNABORTED", ECONNABORTED}, {"ECONNRESET", ECONNRESET},
    {"EINTR", EINTR}, {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"ENOBUFS", ENOBUFS},
    {"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC}, {"EPERM", EPERM}, {"EPIPE", EPIPE},
    {"EPROTO", EPROTO}, {"ETIMEDOUT", ETIMEDOUT},
};

#define ERRORS (sizeof(errors) / sizeof(*errors))

struct rule {
    enum function function;
    int unix_only;
    int error;          /* 0: shorten to *most* */
    size_t most;
    long every, from, left;
    long calls;
};

static struct rule rules[MOST_RULES];
static int rule_count;
static long calls[FUNCTIONS];    /* that headrace made */
static long faults[FUNCTIONS];   /* of those, failed or shortened */

static void wrong(const char *rule) {
    fprintf(stderr, "shim.c: wrong rule: %s\n", rule);
    abort();
}

static void parse(const char *text) {
    char function[32], family[8] = "inet", action[32];
    struct rule rule = {.every = 1, .from = 1, .left = -1};
    int at = 0, more = 0;
    size_t i;
    if (sscanf(text, "%31[a-z0-9_]%n", function, &at) != 1) wrong(text);
    if (text[at] == '/') {
        if (sscanf(text + at, "/%7[a-z]%n", family, &more) != 1) wrong(text);
        at += more;
    }
    if (sscanf(text + at, "=%31[A-Z0-9:]@%ld%n", action, &rule.every, &more) != 2) wrong(text);
    if (rule.every < 1) wrong(text);
    at += more;
    if (text[at] == '+' && sscanf(text + at, "+%ld%n", &rule.from, &more) == 1) at += more;
    if (text[at] == 'x' && sscanf(text + at, "x%ld%n", &rule.left, &more) == 1) at += more;
    if (text[at] != '\0') wrong(text);
    for (i = 0; i < FUNCTIONS && strcmp(function, names[i]) != 0; i++);
    if (i == FUNCTIONS) wrong(text);
    rule.function = (enum function)i;
    rule.unix_only = strcmp(family, "unix") == 0;
    if (!rule.unix_only && strcmp(family, "inet") != 0) wrong(text);
    if (sscanf(action, "SHORT:%zu", &rule.most) != 1) {
        for (i = 0; i < ERRORS && strcmp(action, errors[i].name) != 0; i++);
        if (i == ERRORS) wrong(text);
        rule.error = errors[i].number;
    }
    if (rule_count == MOST_RULES) wrong(text);
    rules[rule_count++] = rule;
}

/* Forget the plan and the counts, and follow this plan. */
void fault_plan(const char *plan) {
    char copy[512], *place = NULL, *rule;
    if (strlen(plan) >= sizeof(copy)) wrong(plan);
    strcpy(copy, plan);
    rule_count = 0;
    memset(calls, 0, sizeof(calls));
    memset(faults, 0, sizeof(faults));
    rule = strtok_r(copy, ",", &place);
    for (; rule != NULL; rule = strtok_r(NULL, ",", &place)) parse(rule);
}

static long counted(const long *counts, const char *function) {
    for (int i = 0; i < FUNCTIONS; i++)
        if (strcmp(function, names[i]) == 0) return counts[i];
    return -1;
}

long fault_calls(const char *function) { return counted(calls, function); }
long fault_count(const char *function) { return counted(faults, function); }

__attribute__((constructor)) static void begin(void) {
    const char *plan = getenv("HEADRACE_FAULTS");
    if (plan != NULL) fault_plan(plan);
}

static int is_ours(const void *caller) {
    Dl_info info;
    if (dladdr(caller, &info) == 0 || info.dli_fname == NULL) return 0;
    return strstr(info.dli_fname, OURS) != NULL;
}

static int family_of(int descriptor) {
    int value = -1;
    socklen_t size = sizeof(value);
    if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &value, &size) < 0) return -1;
    if (value != SOCK_STREAM) return -1;
    size = sizeof(value);
    return getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &value, &size) < 0 ? -1 : value;
}

static int applies(const struct rule *rule, int family) {
    if (rule->unix_only) return family == AF_UNIX;
    return family == AF_INET || family == AF_INET6;
}

/* Return the rule that this call has to obey, or NULL. *socket* is -1 if the call is not on one. */
static const struct rule *rule_for(enum function function, const void *caller, int socket) {
    int saved = errno, family, i;
    const struct rule *found = NULL;
    if (!is_ours(caller)) return NULL;
    calls[function]++;
    family = socket < 0 ? -1 : family_of(socket);
    for (i = 0; i < rule_count && found == NULL; i++) {
        struct rule *rule = &rules[i];
        if (rule->function != function || rule->left == 0) continue;
        if (socket >= 0 && !applies(rule, family)) continue;
        rule->calls++;
        if (rule->calls < rule->from || rule->calls % rule->every != 0) continue;
        if (rule->left > 0) rule->left--;
        found = rule;
        faults[function]++;
    }
    errno = saved;
    return found;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALLER __builtin_return_address(0)

/* Return whether *rule* makes the call fail, and set errno then. */
static int fails(const struct rule *rule) {
    if (rule == NULL || rule->error == 0) return 0;
    errno = rule->error;
    return 1;
}

ssize_t recv(int descriptor, void *buffer, size_t size, int flags) {
    const struct rule *rule = rule_for(RECV, CALLER, descriptor);
    if (fails(rule)) return -1;
    if (rule != NULL && size > rule->most) size = rule->most;
    return REAL(recv)(descriptor, buffer, size, flags);
}

ssize_t send(int descriptor, const void *buffer, size_t size, int flags) {
    const struct rule *rule = rule_for(SEND, CALLER, descriptor);
    if (fails(rule)) return -1;
    if (rule != NULL && size > rule->most) size = rule->most;
    return REAL(send)(descriptor, buffer, size, flags);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    const struct rule *rule = rule_for(SENDMSG, CALLER, descriptor);
    struct msghdr less = *message;
    struct iovec vectors[MOST_VECTORS];
    size_t left, i;
    if (fails(rule)) return -1;
    if (rule != NULL) {
        left = rule->most;
        for (i = 0; i < message->msg_iovlen && i < MOST_VECTORS && left > 0; i++) {
            vectors[i] = message->msg_iov[i];
            if (vectors[i].iov_len > left) vectors[i].iov_len = left;
            left -= vectors[i].iov_len;
        }
        less.msg_iov = vectors;
        less.msg_iovlen = i;
    }
    return REAL(sendmsg)(descriptor, &less, flags);
}

int accept4(int descriptor, struct sockaddr *address, socklen_t *size, int flags) {
    if (fails(rule_for(ACCEPT4, CALLER, descriptor))) return -1;
    return REAL(accept4)(descriptor, address, size, flags);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int milliseconds) {
    if (fails(rule_for(EPOLL_WAIT, CALLER, -1))) return -1;
    return REAL(epoll_wait)(epoll, events, most, milliseconds);
}

int epoll_create1(int flags) {
    if (fails(rule_for(EPOLL_CREATE1, CALLER, -1))) return -1;
    return REAL(epoll_create1)(flags);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    if (operation == EPOLL_CTL_ADD && fails(rule_for(CTL_ADD, CALLER, -1))) return -1;
    if (operation == EPOLL_CTL_MOD && fails(rule_for(CTL_MOD, CALLER, -1))) return -1;
    return REAL(epoll_ctl)(epoll, operation, descriptor, event);
}
