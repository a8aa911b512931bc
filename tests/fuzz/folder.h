/* A folder of its own for a harness whose parser reads files; gone with the process. */
#ifndef SIGNET_FUZZ_FOLDER_H
#define SIGNET_FUZZ_FOLDER_H

#include <stddef.h>
#include <stdint.h>

const char *fuzz_folder(void);
/* Its file of this name holds these bytes from now on. */
void fuzz_file(const char *name, const uint8_t *data, size_t size);

#endif
