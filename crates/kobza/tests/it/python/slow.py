"""A slow task between two quick ones; each leaves a line."""

import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def line(text):
    with open(os.path.join(HERE, "lines"), "a") as file:
        file.write(text + "\n")


def first():
    line("first")


def slow():
    with open(os.path.join(HERE, "pid"), "w") as file:
        file.write(str(os.getpid()))
    line("slow-begin")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.05)
    line("slow-end")


def last():
    line("last")
