"""Classify scikit-learn's handwritten digits with a small neural network."""

import argparse
import warnings

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--hidden", "-n", type=int, default=16, help="units of the hidden layer")
parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
parser.add_argument("--alpha", type=float, default=1e-4, help="L2 penalty")
parser.add_argument("--solver", choices=["adam", "sgd"], default="adam")
parser.add_argument("--momentum", type=float, default=0.9, help="only of sgd")
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--verbose", action="store_true")
args = parser.parse_args()

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
scaler = StandardScaler().fit(X_train)
model = MLPClassifier(
    (args.hidden,),
    solver=args.solver,
    learning_rate_init=args.lr,
    alpha=args.alpha,
    momentum=args.momentum,
    max_iter=1,
    warm_start=True,
    random_state=args.seed,
)
warnings.simplefilter("ignore")  # that it has not converged
for epoch in range(1, args.epochs + 1):
    model.fit(scaler.transform(X_train), y_train)
    if args.verbose:
        print(f"epoch {epoch}/{args.epochs}  loss={model.loss_:.4f}")
print(
    f"Test accuracy: {100 * model.score(scaler.transform(X_test), y_test):.2f}% (higher is better)"
)
