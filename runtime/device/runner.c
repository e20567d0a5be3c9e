/* Runs one image through a .tflite on the machine it lies on, with LiteRT's shared library, and says what it cost.
 *
 *   pocketsr_run MODEL INPUT OUTPUT --height H --width W [--threads N] [--runs R] [--warmup K]
 *
 * INPUT and OUTPUT are the bytes of the file's input and output tensor (batch 1, NHWC). On success it prints one line of JSON:
 *   open_ms     loading the file and giving its operators to XNNPACK
 *   prepare_ms  resizing, allocating, writing the input
 *   run_ms      the network alone, of every run after the warm-up
 *   read_ms     reading the output back
 *   peak_bytes  rise of the highest resident size (VmHWM) over all that but reading back; null where /proc does not tell
 *   version     of LiteRT
 * Anything else is one sentence on standard error and exit code 2.
 *
 * LiteRT's package has no headers. The declarations below follow litert/c of its 2.3 sources; `runtime.device.build` names the
 * version that it builds against.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef struct LiteRtEnvironmentT *LiteRtEnvironment;
typedef struct LiteRtModelT *LiteRtModel;
typedef struct LiteRtSubgraphT *LiteRtSubgraph;
typedef struct LiteRtTensorT *LiteRtTensor;
typedef struct LiteRtOptionsT *LiteRtOptions;
typedef struct LiteRtOpaqueOptionsT *LiteRtOpaqueOptions;
typedef struct LiteRtCompiledModelT *LiteRtCompiledModel;
typedef struct LiteRtTensorBufferRequirementsT *LiteRtTensorBufferRequirements;
typedef struct LiteRtTensorBufferT *LiteRtTensorBuffer;
typedef struct {
    unsigned rank : 7;
    bool has_strides : 1;
    int32_t dimensions[8];
    uint32_t strides[8];
} LiteRtLayout;
typedef struct {
    int element_type;
    LiteRtLayout layout;
} LiteRtRankedTensorType;
_Static_assert(sizeof(LiteRtRankedTensorType) == 72, "the library's own size of a tensor type");

enum { FLOAT32 = 1, UINT8 = 3, INT8 = 9 };         /* element types */
enum { CPU = 1 };                                  /* accelerator */
enum { FOR_READING = 0, FOR_WRITING = 1 };            /* of buffers */

int LiteRtCreateEnvironment(int count, const void *options, LiteRtEnvironment *environment);
int LiteRtCreateModelFromFile(LiteRtEnvironment environment, const char *path, LiteRtModel *model);
int LiteRtGetMainModelSubgraphIndex(LiteRtModel model, size_t *index);
int LiteRtGetModelSubgraph(LiteRtModel model, size_t index, LiteRtSubgraph *subgraph);
int LiteRtGetNumSubgraphInputs(LiteRtSubgraph subgraph, size_t *count);
int LiteRtGetNumSubgraphOutputs(LiteRtSubgraph subgraph, size_t *count);
int LiteRtGetSubgraphInput(LiteRtSubgraph subgraph, size_t index, LiteRtTensor *tensor);
int LiteRtGetSubgraphOutput(LiteRtSubgraph subgraph, size_t index, LiteRtTensor *tensor);
int LiteRtGetRankedTensorType(LiteRtTensor tensor, LiteRtRankedTensorType *type);
int LiteRtCreateOptions(LiteRtOptions *options);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions options, int accelerators);
int LiteRtCreateOpaqueOptions(const char *name, void *payload, void (*free_payload)(void *), LiteRtOpaqueOptions *options);
int LiteRtAddOpaqueOptions(LiteRtOptions options, LiteRtOpaqueOptions more);
int LiteRtCreateCompiledModel(LiteRtEnvironment environment, LiteRtModel model, LiteRtOptions options,
                              LiteRtCompiledModel *compiled);
int LiteRtCompiledModelResizeInputTensorNonStrict(LiteRtCompiledModel compiled, size_t signature, size_t input,
                                                  const int *dimensions, size_t rank);
int LiteRtGetCompiledModelOutputTensorLayouts(LiteRtCompiledModel compiled, size_t signature, size_t count,
                                              LiteRtLayout *layouts, bool allocate);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel compiled, size_t signature, size_t input,
                                                  LiteRtTensorBufferRequirements *requirements);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel compiled, size_t signature, size_t output,
                                                   LiteRtTensorBufferRequirements *requirements);
int LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment environment, const LiteRtRankedTensorType *type,
                                                    LiteRtTensorBufferRequirements requirements, LiteRtTensorBuffer *buffer);
int LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer buffer, size_t *size);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer buffer, void **address, int mode);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer buffer);
int LiteRtRunCompiledModel(LiteRtCompiledModel compiled, size_t signature, size_t inputs, LiteRtTensorBuffer *input,
                           size_t outputs, LiteRtTensorBuffer *output);

enum { MOST_SECONDS = 30 }; /* to open a file and make room: some damaged files keep LiteRT busy for ever */
enum { LARGEST_SIDE = 1 << 15, LARGEST_COUNT = 1 << 20, BAD_INPUT = 2 };

static const char *model_path = "the model";
static char part[4096];       /* OUTPUT's temporary name while it exists */
static int messages = -1;     /* what LiteRT writes to standard error */
static int terminal = 2;      /* the real standard error */

static void refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void refuse(const char *format, ...) {
    va_list arguments;
    if (part[0])
        unlink(part);
    dprintf(terminal, "error: ");
    va_start(arguments, format);
    vdprintf(terminal, format, arguments);
    va_end(arguments);
    dprintf(terminal, "\n");
    _exit(BAD_INPUT);
}

/* A damaged file may make LiteRT crash, or never end: still one sentence. Only calls that are safe in a signal handler. */
static void lost(int number) {
    static const char before[] = "error: expected a whole .tflite, found that LiteRT ", crashes[] = "crashes on ",
                      endless[] = "does not come to an end with ", after[] = ": export it again.\n";
    ssize_t ignored = write(terminal, before, sizeof before - 1);
    ignored = number == SIGALRM ? write(terminal, endless, sizeof endless - 1) : write(terminal, crashes, sizeof crashes - 1);
    ignored = write(terminal, model_path, strlen(model_path));
    ignored = write(terminal, after, sizeof after - 1);
    (void)ignored;
    if (part[0])
        unlink(part);
    _exit(BAD_INPUT);
}

static void contain(void) {
    static char stack[1 << 16]; /* of its own: the crash may be a full stack */
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = lost, .sa_flags = SA_ONSTACK};
    sigaltstack(&other, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* LiteRT announces itself on standard error; kept in memory, so that its last word can be quoted when it refuses. */
static void collect_messages(void) {
    terminal = dup(2);
    messages = memfd_create("messages", MFD_CLOEXEC);
    int target = messages >= 0 ? messages : open("/dev/null", O_WRONLY);
    if (terminal < 0 || target < 0 || dup2(target, 2) < 0)
        terminal = 2;
}

static const char *last_error(void) {
    static char text[4096];
    off_t size = messages >= 0 ? lseek(messages, 0, SEEK_END) : 0;
    off_t start = size > (off_t)sizeof text - 1 ? size - (off_t)sizeof text + 1 : 0;
    ssize_t length = size > 0 ? pread(messages, text, sizeof text - 1, start) : 0;
    text[length > 0 ? length : 0] = 0;
    char *found = NULL;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "ERROR: ", 7) == 0)
            found = line + 7;
    if (found && found[0] == '[' && strstr(found, "] ")) /* [file.cc:line] */
        found = strstr(found, "] ") + 2;
    if (!found)
        return "it does not say why";
    for (size_t n = strlen(found); n && strchr(". ", found[n - 1]); n--)
        found[n - 1] = 0;
    return found;
}

static void must(int status, const char *what) {
    if (status != 0)
        refuse("expected a .tflite that LiteRT can run, found that it fails to %s %s (status %d: %s): export it again, or use "
               "a smaller image.", what, model_path, status, last_error());
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* The highest resident size since the last reset, in bytes; -1 where the kernel does not tell. */
static long long highest(void) {
    char line[256];
    long long kibibytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kibibytes) == 1)
            break;
    if (file)
        fclose(file);
    return kibibytes < 0 ? -1 : 1024 * kibibytes;
}

static long long reset_highest(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY);
    bool reset = file >= 0 && write(file, "5", 1) == 1;
    if (file >= 0)
        close(file);
    return reset ? highest() : -1;
}

static size_t element_bytes(int type, const char *which) {
    if (type != FLOAT32 && type != UINT8 && type != INT8)
        refuse("expected float32, uint8 or int8 values at the %s, found type %d of LiteRT in %s: export it again.", which, type,
               model_path);
    return type == FLOAT32 ? 4 : 1;
}

static void check_image(const LiteRtRankedTensorType *type, const char *which) {
    const LiteRtLayout *layout = &type->layout;
    element_bytes(type->element_type, which);
    if (layout->rank != 4 || layout->dimensions[0] > 1 || layout->dimensions[3] != 3)
        refuse("expected an %s of shape (1, H, W, 3), found other dimensions in %s: export it again.", which, model_path);
}

static unsigned char *read_input(const char *path, size_t wanted) {
    unsigned char *bytes = malloc(wanted);
    FILE *file = fopen(path, "rb");
    if (!file)
        refuse("expected the input's bytes, found none at %s (%s): check the path.", path, strerror(errno));
    if (!bytes)
        refuse("expected memory for an input of %zu bytes, found too little: use a smaller image.", wanted);
    size_t found = fread(bytes, 1, wanted, file);
    if (found != wanted || fgetc(file) != EOF)
        refuse("expected %zu bytes of input, found %s in %s: give height x width x 3 values of the file's type.", wanted,
               found == wanted ? "more" : "fewer", path);
    fclose(file);
    return bytes;
}

/* Under a temporary name first: a reader sees the whole output or none. */
static void write_output(const char *path, const void *bytes, size_t size) {
    static const char suffix[] = ".part";
    if (strlen(path) > sizeof part - sizeof suffix) /* before `part` names a file that is not ours */
        refuse("expected a path of at most %zu bytes for the output, found a longer one: rename it.", sizeof part - sizeof suffix);
    snprintf(part, sizeof part, "%s%s", path, suffix);
    FILE *file = fopen(part, "wb");
    bool whole = file && fwrite(bytes, 1, size, file) == size;
    if (file)
        whole = fclose(file) == 0 && whole;
    if (!whole || rename(part, path) != 0)
        refuse("expected to write %zu bytes of output to %s, found that it is not possible (%s): free some space or give another "
               "path.", size, path, strerror(errno));
    part[0] = 0;
}

typedef struct {
    const char *model, *input, *output;
    long height, width, threads, runs, warmup;
} Arguments;

static long number(const char *name, const char *text, long least, long most) {
    char *end;
    errno = 0;
    long value = text ? strtol(text, &end, 10) : 0;
    if (!text || !*text || *end || errno || value < least || value > most)
        refuse("expected %s to be a whole number from %ld to %ld, found %s: correct it.", name, least, most,
               text ? text : "nothing");
    return value;
}

static Arguments parse(int count, char **words) {
    Arguments given = {.threads = 1, .runs = 1};
    const char **paths[] = {&given.model, &given.input, &given.output};
    struct { const char *name; long *value, least, most; } options[] = {
        {"--height", &given.height, 1, LARGEST_SIDE}, {"--width", &given.width, 1, LARGEST_SIDE},
        {"--threads", &given.threads, 1, 1024}, {"--runs", &given.runs, 1, LARGEST_COUNT},
        {"--warmup", &given.warmup, 0, LARGEST_COUNT},
    };
    size_t known = sizeof options / sizeof *options, next = 0;
    for (int i = 1; i < count; i++) {
        size_t k = 0;
        while (k < known && strcmp(words[i], options[k].name) != 0)
            k++;
        if (k < known) {
            *options[k].value = number(options[k].name, i + 1 < count ? words[i + 1] : NULL, options[k].least, options[k].most);
            i++;
        } else if (next < 3 && strncmp(words[i], "--", 2) != 0) {
            *paths[next++] = words[i];
        } else {
            refuse("expected known options, found %s: leave it out.", words[i]);
        }
    }
    if (next < 3 || !given.height || !given.width)
        refuse("expected MODEL INPUT OUTPUT --height H --width W, found fewer: add what is missing "
               "(others are --threads N, --runs R, --warmup K).");
    return given;
}

int main(int count, char **words) {
    Arguments given = parse(count, words);
    model_path = given.model;
    if (access(given.model, R_OK) != 0)
        refuse("expected a .tflite file, found none at %s (%s): check the path.", given.model, strerror(errno));
    double *run_ms = calloc((size_t)given.runs, sizeof *run_ms);
    char *threads = NULL;
    if (!run_ms || asprintf(&threads, "num_threads = %ld\n", given.threads) < 0)
        refuse("expected memory for %ld timings, found too little: use fewer runs.", given.runs);
    contain();
    collect_messages();

    LiteRtEnvironment environment;
    LiteRtOptions options;
    LiteRtOpaqueOptions xnnpack; /* its options are a text that the library parses */
    must(LiteRtCreateEnvironment(0, NULL, &environment), "start for");
    must(LiteRtCreateOptions(&options), "start for");
    must(LiteRtSetOptionsHardwareAccelerators(options, CPU), "start for");
    must(LiteRtCreateOpaqueOptions("xnnpack", threads, free, &xnnpack), "start for");
    must(LiteRtAddOpaqueOptions(options, xnnpack), "start for");

    LiteRtModel model;
    LiteRtSubgraph graph;
    LiteRtTensor tensor;
    LiteRtCompiledModel compiled;
    LiteRtRankedTensorType input_type, output_type;
    size_t main_graph, inputs, outputs;
    long long before = reset_highest();
    alarm(MOST_SECONDS);
    double start = milliseconds();
    must(LiteRtCreateModelFromFile(environment, given.model, &model), "read");
    must(LiteRtGetMainModelSubgraphIndex(model, &main_graph), "read");
    must(LiteRtGetModelSubgraph(model, main_graph, &graph), "read");
    must(LiteRtGetNumSubgraphInputs(graph, &inputs), "read");
    must(LiteRtGetNumSubgraphOutputs(graph, &outputs), "read");
    if (inputs != 1 || outputs != 1)
        refuse("expected one input and one output, found %zu and %zu in %s: export it again.", inputs, outputs, model_path);
    must(LiteRtGetSubgraphInput(graph, 0, &tensor), "read");
    must(LiteRtGetRankedTensorType(tensor, &input_type), "read");
    must(LiteRtGetSubgraphOutput(graph, 0, &tensor), "read");
    must(LiteRtGetRankedTensorType(tensor, &output_type), "read");
    check_image(&input_type, "input");
    check_image(&output_type, "output");
    must(LiteRtCreateCompiledModel(environment, model, options, &compiled), "open");
    double opened = milliseconds();

    /* the input's bytes are the caller's: they are read before the clock starts again */
    size_t input_bytes = (size_t)given.height * (size_t)given.width * 3 * element_bytes(input_type.element_type, "input");
    unsigned char *input = read_input(given.input, input_bytes);
    LiteRtTensorBufferRequirements requirements;
    LiteRtTensorBuffer input_buffer, output_buffer;
    LiteRtLayout output_layout;
    const int shape[] = {1, (int)given.height, (int)given.width, 3};
    void *address;
    size_t size;
    double preparing = milliseconds();
    if (memcmp(shape, input_type.layout.dimensions, sizeof shape) != 0)
        must(LiteRtCompiledModelResizeInputTensorNonStrict(compiled, 0, 0, shape, 4), "resize");
    must(LiteRtGetCompiledModelOutputTensorLayouts(compiled, 0, 1, &output_layout, true), "allocate");
    memcpy(input_type.layout.dimensions, shape, sizeof shape);
    output_type.layout = output_layout;
    check_image(&output_type, "output");
    must(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &requirements), "allocate");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment, &input_type, requirements, &input_buffer), "allocate");
    must(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &requirements), "allocate");
    must(LiteRtCreateManagedTensorBufferFromRequirements(environment, &output_type, requirements, &output_buffer), "allocate");
    must(LiteRtGetTensorBufferPackedSize(input_buffer, &size), "allocate");
    if (size != input_bytes)
        refuse("expected an input of %zu bytes, found that %s takes %zu: use a size that it was exported for.", input_bytes,
               model_path, size);
    must(LiteRtLockTensorBuffer(input_buffer, &address, FOR_WRITING), "write the input of");
    memcpy(address, input, input_bytes);
    must(LiteRtUnlockTensorBuffer(input_buffer), "write the input of");
    double prepared = milliseconds();
    alarm(0);

    for (long i = -given.warmup; i < given.runs; i++) {
        double begun = milliseconds();
        must(LiteRtRunCompiledModel(compiled, 0, 1, &input_buffer, 1, &output_buffer), "run");
        if (i >= 0)
            run_ms[i] = milliseconds() - begun;
    }
    long long after = highest();

    double reading = milliseconds();
    must(LiteRtGetTensorBufferPackedSize(output_buffer, &size), "read the output of");
    void *output = malloc(size);
    if (!output)
        refuse("expected memory for an output of %zu bytes, found too little: use a smaller image.", size);
    must(LiteRtLockTensorBuffer(output_buffer, &address, FOR_READING), "read the output of");
    memcpy(output, address, size);
    must(LiteRtUnlockTensorBuffer(output_buffer), "read the output of");
    double read = milliseconds();

    write_output(given.output, output, size);
    printf("{\"open_ms\": %.3f, \"prepare_ms\": %.3f, \"run_ms\": [", opened - start, prepared - preparing);
    for (long i = 0; i < given.runs; i++)
        printf("%s%.3f", i ? ", " : "", run_ms[i]);
    printf("], \"read_ms\": %.3f, \"peak_bytes\": ", read - reading);
    if (before >= 0 && after >= before)
        printf("%lld", after - before);
    else
        printf("null");
    printf(", \"version\": \"%s\"}\n", LITERT_VERSION);
    if (fflush(stdout) != 0)
        refuse("expected to write the timings to standard output, found it closed: keep it open.");
    _exit(0); /* the process ends here: taking everything apart first would only take time */
}
