"""`sudo` for scripts that were written for machines of their own: runs the command as who it is, in a sandbox that is its own."""

import os
import sys

# Options of sudo that have a value.
VALUED = ("-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U")


def command(words):
    """What is left when sudo's own options are taken away, and the variables that it sets."""
    variables, at = {}, 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if word.startswith("-"):
            at += 2 if word in VALUED else 1
        elif "=" in word:
            name, _, value = word.partition("=")
            variables[name] = value
            at += 1
        else:
            break
    return words[at:], variables


def main():
    words, variables = command(sys.argv[1:])
    if not words:
        sys.exit("sudo: name a command; there is no other user here")
    os.environ.update(variables)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.exit(f"sudo: {words[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
