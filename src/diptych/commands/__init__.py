"""One function a command: parse, make one library call, print its result; ``cli`` says which file holds which."""
