// Stands in for the libraries in the list `absent`. absent.def, made by scripts/lib/image.sh, has ABSENT(name) for each
// function that a program or library of the image links to.
//
// A call of such a function ends the program with a line that names it. The functions below are the exceptions: systemd
// calls them in any case, and learns that there is nothing to do.

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static _Noreturn void absent(const char *name)
{
	// PID 1 has /dev/null as its standard error.
	int out = getpid() == 1 ? open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC) : STDERR_FILENO;
	dprintf(out, "Error: %s: the library with this function is not in the stage1 image\n", name);
	abort();
}

#define EXPORTED __attribute__((visibility("default")))
#define ABSENT(name) EXPORTED void name(void) { absent(#name); }
#include "absent.def"

// SELinux is off.
EXPORTED int is_selinux_enabled(void)
{
	return 0;
}

// What was never opened is closed.
EXPORTED void selinux_status_close(void)
{
}

EXPORTED void freecon(char *context)
{
	free(context);
}

// A PID 1 with CAP_SYS_MODULE loads modules that it likes to have. It finds none, because the image has none.
EXPORTED void *kmod_new(const char *directory, const char *const *configurations)
{
	static char context;

	(void)directory;
	(void)configurations;
	return &context;
}

EXPORTED void *kmod_unref(void *context)
{
	(void)context;
	return NULL;
}

EXPORTED void kmod_set_log_fn(void *context, const void *function, const void *data)
{
	(void)context;
	(void)function;
	(void)data;
}

EXPORTED int kmod_load_resources(void *context)
{
	(void)context;
	return 0;
}

EXPORTED int kmod_module_new_from_lookup(void *context, const char *alias, void **list)
{
	(void)context;
	(void)alias;
	*list = NULL;
	return 0;
}
