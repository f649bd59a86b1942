"""``softmaxkit bench``: this package's speed and memory beside its rivals, on the user's machine.

=============  ================================================================================
module         what stands there
=============  ================================================================================
`operations`   what is measured: operations and shapes
`libraries`    on what, and against what: each library's settings, autodiff, copy and rivals
`environment`  the machine, and the state of this package
`measuring`    rounds in which the contestants alternate; peak memory
`worker`       the process that measures a library in a dtype
`workers`      the same from outside: what it is to do, how it ended
`running`      the command: arguments, progress, what comes out
`results`      cells, ratios, geometric means
`files`        the JSON file
`report`       the tables
`chart`        the picture
=============  ================================================================================
"""
