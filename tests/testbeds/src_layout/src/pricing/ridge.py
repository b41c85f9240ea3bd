"""Ridge regression on the powers of one variable, by solving the normal equations."""


def fit(points, degree, penalty):
    n = degree + 1
    rows = [[x**k for k in range(n)] for x, _ in points]
    system = [
        [sum(r[i] * r[j] for r in rows) + penalty * (i == j) for j in range(n)]
        + [sum(r[i] * y for r, (_, y) in zip(rows, points))]
        for i in range(n)
    ]
    for i in range(n):
        for j in range(n):
            if i != j:
                factor = system[j][i] / system[i][i]
                system[j] = [a - factor * b for a, b in zip(system[j], system[i])]
    return [system[i][n] / system[i][i] for i in range(n)]


def r2(model, points):
    mean = sum(y for _, y in points) / len(points)
    errors = [(y - sum(c * x**k for k, c in enumerate(model))) ** 2 for x, y in points]
    return 1 - sum(errors) / sum((y - mean) ** 2 for _, y in points)
