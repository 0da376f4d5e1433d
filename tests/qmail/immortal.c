/* Set-user-ID root: a checker that the user who started it may not kill. Writes its number to MARK, and sleeps. */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
  const char *mark = getenv("MARK");
  FILE *file;

  if (!mark || setuid(0) == -1) return 1;
  file = fopen(mark, "w");
  if (!file) return 1;
  fprintf(file, "%d\n", (int) getpid());
  if (fclose(file)) return 1;
  sleep(60);
  return 0;
}
