"""The library's main calls, typed: what the command line does, from Python, as ``diptych.pretrain`` and so on."""
