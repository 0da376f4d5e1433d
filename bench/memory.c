/* What a process takes of memory: runs a command and prints the peak of its resident memory in kilobytes, and its page
 * faults without and with reading from a disk.
 *
 *   memory COMMAND [ARGUMENT ...]
 *
 * Small and static, because until the exec a process is counted with the memory of the one that it came from.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    pid_t child = vfork();

    if (argc < 2 || child < 0)
        return 2;
    if (child == 0) {
        execv(argv[1], argv + 1);
        _exit(2);
    }
    if (wait4(child, &status, 0, &usage) < 0 || !WIFEXITED(status))
        return 2;
    printf("%ld %ld %ld\n", usage.ru_maxrss, usage.ru_minflt, usage.ru_majflt);
    return WEXITSTATUS(status) == 2 ? 2 : 0;
}
