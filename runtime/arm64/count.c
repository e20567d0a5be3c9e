/* A plugin of qemu that counts the instructions an emulated program runs between marks that the program sets.
 *
 *   qemu-aarch64 -plugin count.so,out=FILE PROGRAM
 *
 * A mark is the system call getsid, which neither Python nor LiteRT makes of itself. At each, the instructions since the start
 * of the program are appended to FILE, as a decimal number on a line. Counts are of one thread: qemu adds without locking.
 *
 * The declarations are those of version 1 of qemu's plugin API (since qemu 4.2, marks since 6.0), which is all that is used here;
 * so no headers of qemu are needed. compile: cc -O2 -shared -fPIC -o count.so count.c
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
typedef struct {
    const char *target_name;
    struct {
        int min;
        int cur;
    } version;
    bool system_emulation;
} plugin_info;
struct qemu_plugin_tb;
enum { INLINE_ADD_U64 = 0 };
enum { GETSID = 156 }; /* on AArch64 Linux */

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int operation, void *value, uint64_t summand);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id, void (*callback)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                                         uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t instructions;
static FILE *out;

/* A block of instructions without a jump into or out of it; a system call ends one. */
static void on_block(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &instructions, qemu_plugin_tb_n_insns(block));
}

static void on_system_call(plugin_id id, unsigned core, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                           uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)core, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == GETSID) {
        fprintf(out, "%" PRIu64 "\n", instructions);
        fflush(out);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strcmp(info->target_name, "aarch64") != 0) {
        fputs("count.so: expected qemu-aarch64 and out=FILE\n", stderr);
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (out == NULL) {
        perror("count.so: out");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
