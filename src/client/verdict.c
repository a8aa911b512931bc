#include "client/verdict.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ROWS 5
#define LETTER 6 /* columns, with the space behind it */

static const struct letter {
    char letter;
    const char *row[ROWS];
} letters[] = {
    {'A', {" ### ", "#   #", "#####", "#   #", "#   #"}},
    {'F', {"#####", "#    ", "###  ", "#    ", "#    "}},
    {'I', {"#####", "  #  ", "  #  ", "  #  ", "#####"}},
    {'K', {"#   #", "#  # ", "###  ", "#  # ", "#   #"}},
    {'L', {"#    ", "#    ", "#    ", "#    ", "#####"}},
    {'P', {"#### ", "#   #", "#### ", "#    ", "#    "}},
    {'S', {" ####", "#    ", " ### ", "    #", "#### "}},
};

void look_at(struct look *l, FILE *to)
{
    const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
    l->to = to;
    l->large = isatty(fileno(to)) && !(term && strcmp(term, "dumb") == 0);
    l->colour = l->large && !(plain && *plain); /* https://no-color.org */
}

static const char *row_of(char letter, int row)
{
    for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++)
        if (letters[i].letter == letter)
            return letters[i].row[row];
    return "";
}

static void paint(const struct look *l, int columns, const char *colour)
{
    if (l->colour)
        fprintf(l->to, "\033[%sm%*s\033[0m", colour, columns, "");
    for (int i = 0; !l->colour && i < columns; i++)
        fputs("#", l->to);
}

static void show_row(const struct look *l, const char *word, int row, int width, const char *colour)
{
    for (; *word; word++) {
        fputs(" ", l->to);
        for (const char *cell = row_of(*word, row); *cell;) {
            int full = (int)strspn(cell, "#"), blank = (int)strspn(cell + full, " ");
            if (full)
                paint(l, full * width, colour);
            fprintf(l->to, "%*s", blank * width, "");
            cell += full + blank;
        }
    }
    fputs("\n", l->to);
}

void verdict_show(const struct look *l, enum outcome outcome)
{
    static const char *const colours[] = {[PASSED] = "42", [FAILED] = "41", [SKIPPED] = "43"};
    const char *word = outcome_word(outcome);
    struct winsize size = {0};
    if (!l->large)
        return;
    int columns = ioctl(fileno(l->to), TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int letter = columns / (int)strlen(word);
    fputs("\n", l->to);
    if (letter < LETTER) { /* too narrow for anything but the word */
        if (l->colour)
            fprintf(l->to, "\033[%sm%s\033[0m\n", colours[outcome], word);
        else
            fprintf(l->to, "%s\n", word);
        return;
    }
    for (int row = 0; row < ROWS; row++)
        show_row(l, word, row, letter >= 2 * LETTER ? 2 : 1, colours[outcome]);
    fputs("\n", l->to);
}
