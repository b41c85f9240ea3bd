"""A model of a study's trials that chooses what is run next; shared by the samplers.

It knows Optuna's distributions and trials, no method and no language model. Data flows one way:

    trials -> space, encoding -> gp, failures, constraints -> acquisition -> critic <- candidates
"""
