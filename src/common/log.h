/* Log lines to stderr: "signet-authority[123]: text" (systemd's journal adds the time and takes
 * the <N> priority prefix when stderr is its socket). Never a secret: a struct secret has no
 * format. Control characters are printed as '?', so that input cannot forge a line. */
#ifndef SIGNET_LOG_H
#define SIGNET_LOG_H

enum log_level { LOG_ERROR = 3, LOG_WARN = 4, LOG_INFO = 6, LOG_DEBUG = 7 };

void log_open(const char *process, enum log_level most);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/* A broken invariant: logs and ends the process (exit code 70); the supervisor starts it again. */
_Noreturn void fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
