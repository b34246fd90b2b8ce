"""Exercises that build: the learner writes a file, and it is run and sent real requests.

They follow the ladder (`streamtok/first/`). `streamtok.teach.build.exercises` lists them; each is a
module with its task, its hints, what real programs did wrong there, and what grades it;
`skeletons/` has the files that learners begin with, `solutions/` those that pass.
Read next: `streamtok.teach.build.exercise`.
"""
