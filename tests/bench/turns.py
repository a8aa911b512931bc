"""What is compared is measured in turns."""


def swapped(round_number, first, second):
    """Both in turns; which goes first changes with the round. Their results in the order given."""
    if round_number % 2:
        b = second()
        return first(), b
    return first(), second()
